//! The payload form `template`: an event filled into the subscriber's own body. A body that cannot be made is no attempt.
//!
//! Where little has to be done it is done at once; what turns out to be more than that goes to the [`Renderings`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::parcel::{self, Content};
use super::renderings::{RenderingError, Renderings, worked};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{ErrorKind, Event, Outcome, subscription};
use hookcast_core::template::{Allowance, RenderError, SMALL_WORK_BYTES, TIME_MAX, Template, TemplateError, WORK_BYTES_MAX};

/// Why a delivery is dead during whose rendering the process ended.
pub const RENDERING_CRASHED: &str = "rendering_crashed";
/// Data that is always filled in aside: reading it alone takes long.
const SMALL_DATA_BYTES: usize = 4096;
/// Renderings that go aside at once after one that turned out to be much.
const ASIDE_AFTER: u8 = 64;

/// A prepared template of one subscription.
#[derive(Debug)]
pub struct Filled {
    template: Result<Arc<Template>, TemplateError>,
    content_type: String,
    /// One rendering aside at a time; closed once nobody waits for any.
    turn: Semaphore,
    stopped: Arc<AtomicBool>,
    /// Renderings that go aside without a try.
    aside: Cell<u8>,
    /// The time that this thread worked.
    clock: fn() -> Duration,
}

impl Filled {
    /// Prepares the template of a definition.
    #[must_use]
    pub fn of(template: &subscription::Template) -> Self {
        Self {
            template: Template::compile(&template.body).map(Arc::new),
            content_type: template.content_type.clone(),
            turn: Semaphore::new(1),
            stopped: Arc::default(),
            aside: Cell::default(),
            clock: worked,
        }
    }

    /// The request of an event; the same for every attempt.
    ///
    /// # Errors
    /// An outcome that makes the delivery a dead letter.
    pub async fn content(
        &self,
        event: &Event,
        log_id: &str,
        (ordinal, renderings): (Ordinal, &Arc<Renderings>),
    ) -> Result<Content, Outcome> {
        let template = self.template.as_ref().map_err(failed)?;
        let body = match self.at_once(template, event) {
            Some(body) => body.map_err(RenderingError::Template),
            None => self.aside(template, event, (ordinal, log_id), renderings).await,
        };
        match body {
            Ok(body) => Ok(parcel::headed(event, log_id, &self.content_type, body)),
            Err(RenderingError::Crashed) => Err(Outcome::unmade(RENDERING_CRASHED.to_owned())),
            Err(RenderingError::Template(RenderError::Unwanted) | RenderingError::Stopped) => {
                Err(Outcome::failed(ErrorKind::Storage, 0))
            }
            Err(RenderingError::Panicked(panic)) => {
                panic.tell("rendering", "its attempt failed");
                Err(Outcome::failed(ErrorKind::Internal, 0))
            }
            Err(RenderingError::Template(error)) => Err(failed(&error)),
        }
    }

    #[cfg(test)]
    pub(super) fn with_clock(self, clock: fn() -> Duration) -> Self {
        Self { clock, ..self }
    }

    /// Ends what is rendered, and what waits to be: the subscription is gone.
    pub fn retire(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.turn.close();
    }

    /// Fills an event in here and now, with the allowance of what is small; `None` when it is not.
    fn at_once(&self, template: &Template, event: &Event) -> Option<Result<bytes::Bytes, RenderError>> {
        if self.aside.get() > 0 {
            self.aside.set(self.aside.get() - 1);
            return None;
        }
        if template.needs_data() && event.fields().data.len() > SMALL_DATA_BYTES {
            return None;
        }
        match template.render(event, &self.allowance(SMALL_WORK_BYTES)) {
            Err(RenderError::TooMuchWork(_) | RenderError::TooLong(_)) => {
                self.aside.set(ASIDE_AFTER);
                None
            }
            rendered => Some(rendered),
        }
    }

    async fn aside(
        &self,
        template: &Arc<Template>,
        event: &Event,
        (ordinal, log_id): (Ordinal, &str),
        renderings: &Arc<Renderings>,
    ) -> Result<bytes::Bytes, RenderingError> {
        if renderings.has_crashed(ordinal, event, log_id) {
            metrics::counter!("hookcast_renderings_crashed_total").increment(1);
            return Err(RenderingError::Crashed);
        }
        let _turn = self.turn.acquire().await.map_err(|_| RenderingError::Stopped)?;
        renderings.render(template, event, (ordinal, log_id), self.allowance(WORK_BYTES_MAX)).await
    }

    fn allowance(&self, bytes: u64) -> Allowance {
        Allowance { bytes, time: TIME_MAX, clock: self.clock, stopped: Some(Arc::clone(&self.stopped)) }
    }
}

fn failed(error: &impl std::fmt::Display) -> Outcome {
    Outcome::unmade(format!("template: {error}"))
}
