//! How a lane posts a batch: reads what is missing, makes the body, posts it.

use std::rc::Rc;

use super::attempt::{self, Mark};
use super::batch::{BatchBody, Gathered, Sent};
use super::floor::Assignment;
use super::lane::Lane;
use super::policy;
use crate::clock::Timestamp;
use crate::model::{ErrorKind, Outcome};

/// Posts a batch once; what did not fit or is gone is marked so.
pub(super) async fn post(lane: &Lane, assignment: &Assignment, batch: &Gathered, began: Timestamp) -> Outcome {
    let mut body = BatchBody::new(batch.terms, batch.members.len());
    let mut is_whole = false;
    for member in &batch.members {
        if is_whole {
            member.mark(Sent::Left);
            continue;
        }
        let parcel = match member.parcel() {
            Some(parcel) => Rc::clone(parcel),
            None => match lane.context.follow.get(member.seq).await {
                Ok(Some(event)) => Rc::clone(member.fill(event)),
                Ok(None) => {
                    member.mark(Sent::Gone);
                    continue;
                }
                Err(_) => return attempt::failed(ErrorKind::Storage, 0),
            },
        };
        if !body.add(&parcel) {
            member.mark(Sent::Left);
            is_whole = true;
        }
    }
    let Some(content) = body.finish(lane.context.follow.log_id(), assignment.record.spec.id.as_str()) else {
        return policy::gone();
    };
    match lane.address(&assignment.record) {
        Some(address) => attempt::post(lane.client(), &address, &content, Mark::of(&assignment.job), began).await,
        None => attempt::failed(ErrorKind::Protocol, 0),
    }
}
