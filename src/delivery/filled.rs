//! The payload form `template`: an event filled into the subscriber's own body. A body that cannot be made is no attempt.

use std::sync::Arc;

use super::parcel::{self, Content};
use crate::model::{ErrorKind, Event, Outcome, subscription};
use crate::template::{Template, TemplateError};

/// A prepared template of one subscription.
#[derive(Debug)]
pub struct Filled {
    template: Result<Arc<Template>, TemplateError>,
    content_type: String,
}

impl Filled {
    /// Prepares the template of a definition.
    #[must_use]
    pub fn of(template: &subscription::Template) -> Self {
        Self { template: Template::compile(&template.body).map(Arc::new), content_type: template.content_type.clone() }
    }

    /// The request of an event; the same for every attempt.
    ///
    /// # Errors
    /// An outcome that makes the delivery a dead letter.
    pub async fn content(&self, event: &Event, log_id: &str) -> Result<Content, Outcome> {
        let body = match &self.template {
            Ok(template) if template.is_heavy(event) => {
                let (template, event) = (Arc::clone(template), event.clone());
                // Others of the lane do not wait for it.
                match tokio::task::spawn_blocking(move || template.render(&event)).await {
                    Ok(rendered) => rendered,
                    Err(_) => return Err(Outcome::failed(ErrorKind::Storage, 0)),
                }
            }
            Ok(template) => template.render(event),
            Err(error) => Err(error.clone()),
        };
        body.map(|body| parcel::headed(event, log_id, &self.content_type, body)).map_err(|error| failed(&error))
    }
}

fn failed(error: &TemplateError) -> Outcome {
    Outcome::unmade(format!("template: {error}"))
}
