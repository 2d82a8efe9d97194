//! A link, and the answer that carries it.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, Responder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::SoilPages;
use super::key::{Grant, Policy};
use crate::soil::PartialFailure;
use crate::task::TaskId;
use crate::task::clock::now;

/// What a segment of a path lets stand.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An answer for whoever started a task, and a link to its page; [`SoilPages::start`] makes one. HQ's `get_start_response`.
///
/// A handler returns it: 202 with the JSON `{"download_id", "download_url", "message"}`, or, to a form of a browser that
/// prefers HTML, 303 to the page.
#[derive(Clone, Debug)]
#[must_use = "it is an answer: return it from the handler, or take its `url`"]
pub struct StartResponse {
    pages: SoilPages,
    id: TaskId,
    group: Option<PartialFailure>,
    owners: Vec<String>,
    message: Option<String>,
    lifetime: Duration,
}

impl StartResponse {
    pub(super) fn new(pages: SoilPages, id: TaskId, group: Option<PartialFailure>) -> Self {
        let lifetime = pages.lifetime;
        Self { pages, id, group, owners: Vec::new(), message: None, lifetime }
    }

    /// Somebody who may use the link, in the application's words; without any, whoever has it.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owners.push(owner.into());
        self
    }

    /// What the page says when the file is there. Default: "Your file is ready."
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// How long the link can be used.
    pub fn lasts(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// What the failure of some members of a group makes of the whole; of a single task it says nothing.
    pub fn policy(mut self, policy: PartialFailure) -> Self {
        self.group = self.group.map(|_| policy);
        self
    }

    /// The id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The page.
    pub fn url(&self) -> String {
        let grant = Grant {
            id: self.id.as_str().to_owned(),
            group: self.group.map(Policy::from),
            owners: self.owners.clone(),
            message: self.message.clone(),
            expires: (now() + self.lifetime).as_millis() / 1_000,
        };
        let key = self.pages.keys.sign(&grant);
        format!("{}/{}?key={key}", self.pages.public, segment(self.id.as_str()))
    }
}

/// An id as a segment of a path.
pub(super) fn segment(id: &str) -> String {
    utf8_percent_encode(id, SEGMENT).to_string()
}

impl Serialize for StartResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("StartResponse", 3)?;
        fields.serialize_field("download_id", &self.id)?;
        fields.serialize_field("download_url", &self.url())?;
        fields.serialize_field("message", &self.message)?;
        fields.end()
    }
}

impl Responder for StartResponse {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let from_a_form = accept.is_some_and(|accept| accept.contains("text/html"));
        if from_a_form {
            return HttpResponse::SeeOther().insert_header((header::LOCATION, self.url())).finish();
        }
        HttpResponse::Accepted().insert_header((header::LOCATION, self.url())).json(self)
    }
}
