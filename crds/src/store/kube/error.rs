//! What the API server's refusals, and its silence, mean to us.

use std::time::Duration;

use ::kube::Error;
use ::kube::core::Status;

use super::super::{Key, Object, StoreError};

/// Why a request has no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no.
    Refused(Box<Status>),
    /// Nothing came for so long.
    Silent(Duration),
    /// We asked for something that is no request.
    Bad(String),
    /// No connection, or an answer that makes no sense.
    Broken(String),
}

impl Failure {
    pub(super) fn building(error: ::kube::core::request::Error) -> Self {
        Self::Bad(error.to_string())
    }

    /// About one object.
    pub(super) fn of_object<K: Object>(self, key: &Key) -> StoreError {
        let (kind, name) = (K::kind(&()).into_owned(), key.to_string());
        match self {
            Self::Refused(status) => match (status.code, status.reason.as_str()) {
                (404, _) if unknown_kind(&status) => StoreError::Unavailable(no_such_kind::<K>()),
                (404, _) => StoreError::NotFound { kind, name },
                (409, "AlreadyExists") => StoreError::AlreadyExists { kind, name },
                (409, _) => StoreError::Conflict { kind, name },
                _ => refused::<K>(&status),
            },
            other @ (Self::Silent(_) | Self::Bad(_) | Self::Broken(_)) => other.of_kind::<K>(),
        }
    }

    /// About a kind as a whole.
    pub(super) fn of_kind<K: Object>(self) -> StoreError {
        match self {
            Self::Refused(status) if status.code == 404 => StoreError::Unavailable(no_such_kind::<K>()),
            Self::Refused(status) => refused::<K>(&status),
            Self::Silent(time) => {
                StoreError::Unavailable(format!("the API server did not answer within {}s", time.as_secs()))
            }
            Self::Bad(text) => StoreError::Invalid(text),
            Self::Broken(text) => StoreError::Unavailable(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Api(status) = error {
            return Self::Refused(status);
        }
        if let Error::BuildRequest(error) = error {
            return Self::building(error);
        }
        // The source says it (`connection refused`), the outer error only where.
        Self::Broken(chain(&error))
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// `404 page not found` of a group or kind that is not served has no details of an object.
fn unknown_kind(status: &Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

fn no_such_kind<K: Object>() -> String {
    let (kind, version) = (K::kind(&()), K::api_version(&()));
    format!("the API server serves no {kind} of {version}: install or upgrade the CRDs")
}

fn refused<K: Object>(status: &Status) -> StoreError {
    match status.code {
        410 => StoreError::Expired { kind: K::kind(&()).into_owned() },
        403 => StoreError::Forbidden(status.message.clone()),
        400 | 413 | 422 => StoreError::Invalid(invalid(status)),
        // A patch that does not fit the schema is the client's fault, whatever the server calls it.
        500 if status.message.starts_with("failed to create typed patch object") => {
            StoreError::Invalid(status.message.clone())
        }
        401 => StoreError::Unavailable(format!("the API server refused our token: {}", status.message)),
        code => StoreError::Unavailable(format!("the API server answered {code}: {}", status.message)),
    }
}

/// The causes as `field: text`, without the words that the server puts around them.
fn invalid(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let texts: Vec<String> = causes
        .filter(|cause| !cause.message.is_empty())
        .map(|cause| {
            // The server quotes the type where the value is no scalar.
            let message = cause.message.replacen("Invalid value: \"object\": ", "Invalid value: ", 1);
            if cause.field.is_empty() { message } else { format!("{}: {message}", cause.field) }
        })
        .collect();
    if texts.is_empty() { status.message.clone() } else { texts.join("; ") }
}

/// What ends a watch, said in its stream.
pub(super) fn watch_ended<K: Object>(status: &Status) -> StoreError {
    refused::<K>(status)
}
