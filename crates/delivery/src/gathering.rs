//! How a lane posts a batch: reads what is missing, makes the body, posts it.

use std::rc::Rc;

use super::attempt::{self, Mark};
use super::batch::{BatchBody, Gathered, Sent};
use super::bodies::Body;
use super::floor::Assignment;
use super::lane::Lane;
use super::parcel::Parcel;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{ErrorKind, Outcome};

/// Posts a batch once; what did not fit or is gone is marked so.
pub(super) async fn post(lane: &Lane, assignment: &Assignment, batch: &Gathered, began: Timestamp) -> Outcome {
    let is_current = |body: &Rc<Body>| body.seqs.first().is_some_and(|first| lane.is_current(*first));
    let known = lane.bodies.borrow().find(&batch.terms, &batch.members).filter(is_current);
    let body = match known {
        Some(body) => body,
        None => match make(lane, batch).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        },
    };
    let keeps_id = batch.has_old_id && batch.is_whole();
    let content = body.content(lane.context.follow.log_id(), assignment.record.spec.id.as_str(), keeps_id);
    match lane.address(&assignment.record) {
        Some(address) => attempt::post(lane.client(), &address, &content, Mark::of(&assignment.job), began).await,
        None => Outcome::failed(ErrorKind::Protocol, 0),
    }
}

/// Makes the body, and keeps it for others when everything went into it.
async fn make(lane: &Lane, batch: &Gathered) -> Result<Rc<Body>, Outcome> {
    let mut body = BatchBody::new(batch.terms, batch.members.len());
    let mut is_full = false;
    for member in &batch.members {
        if is_full {
            member.mark(Sent::Left);
            continue;
        }
        let parcel = match member.parcel().filter(|_| lane.is_current(member.seq)) {
            Some(parcel) => Rc::clone(parcel),
            None => match lane.context.follow.get(member.seq).await {
                Ok(Some(event)) if lane.is_current(member.seq) => Rc::clone(member.fill(event)),
                Ok(Some(event)) => Rc::new(Parcel::new(event)),
                Ok(None) => {
                    member.mark(Sent::Gone);
                    continue;
                }
                Err(_) => return Err(Outcome::failed(ErrorKind::Storage, 0)),
            },
        };
        if !body.add(&parcel) {
            member.mark(Sent::Left);
            is_full = true;
        }
    }
    let body = Rc::new(body.finish().ok_or_else(Outcome::event_gone)?);
    if body.seqs.len() == batch.members.len() {
        lane.bodies.borrow_mut().keep(&body);
    }
    Ok(body)
}
