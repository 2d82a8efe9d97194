//! A link to a page, and the answer that carries it.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Responder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::SoilPages;
use super::key::{Grant, Policy};
use crate::Celeriac;
use crate::soil::{PartialFailure, SoilError};
use crate::task::TaskId;
use crate::task::clock::now;

/// The characters that are percent-encoded in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The answer to a user who started a task, with a link to the task's page. [`SoilPages::start`] makes one. HQ's
/// counterpart is `get_start_response`.
///
/// A handler returns it. The answer is 202 with the JSON `{"download_id", "download_url", "message"}` or, if the
/// request comes from a form of a browser that prefers HTML, 303 to the page.
#[derive(Clone, Debug)]
#[must_use = "it is an answer: return it from the handler, or take its `url`"]
pub struct StartResponse {
    pages: SoilPages,
    id: TaskId,
    group: Option<PartialFailure>,
    owners: Vec<String>,
    message: Option<String>,
    lifetime: Duration,
    generation: u64,
}

impl StartResponse {
    pub(super) fn new(pages: SoilPages, id: TaskId, group: Option<PartialFailure>) -> Self {
        let lifetime = pages.lifetime;
        Self { pages, id, group, owners: Vec::new(), message: None, lifetime, generation: 0 }
    }

    /// Adds a user who may use the link, in the application's words. Without owners, everybody who has the link may
    /// use it.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owners.push(owner.into());
        self
    }

    /// Sets the text that the page shows when the file is ready. The default is "Your file is ready."
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Sets how long the link can be used.
    pub fn lasts(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets what the failure of some members of a group makes of the whole. For a single task this changes nothing.
    pub fn policy(mut self, policy: PartialFailure) -> Self {
        self.group = self.group.map(|_| policy);
        self
    }

    /// Makes a link that opens although the earlier links of this id were revoked
    /// ([`Soil::revoke_links`](crate::soil::Soil::revoke_links)), until somebody revokes them again.
    ///
    /// ```no_run
    /// # use celeriac::web::SoilPages;
    /// # async fn demo(celeriac: celeriac::Celeriac, pages: SoilPages, id: celeriac::TaskId) -> Result<(), Box<dyn std::error::Error>> {
    /// celeriac.soil().revoke_links(&id).await?; // it went to the wrong address
    /// let url = pages.start(&id).renewed(&celeriac).await?.url();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn renewed(self, celeriac: &Celeriac) -> Result<Self, SoilError> {
        let generation = celeriac.soil().link_generation(&self.id).await?;
        Ok(Self { generation, ..self })
    }

    /// The id of the task or group.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The address of the page, with the key. It is valid for the lifetime of the link from now on.
    pub fn url(&self) -> String {
        let grant = Grant {
            id: self.id.as_str().to_owned(),
            group: self.group.map(Policy::from),
            owners: self.owners.clone(),
            message: self.message.clone(),
            expires: (now() + self.lifetime).as_millis() / 1_000,
            generation: self.generation,
        };
        let key = self.pages.keys.sign(&grant);
        format!("{}/{}?key={key}", self.pages.public, segment(self.id.as_str()))
    }
}

/// Encodes an id as a segment of a path.
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
            return plain(&mut HttpResponse::SeeOther())
                .insert_header((header::LOCATION, self.url()))
                .finish();
        }
        plain(&mut HttpResponse::Accepted()).insert_header((header::LOCATION, self.url())).json(self)
    }
}

/// Sets headers for an answer that carries a key, which no cache may keep.
fn plain(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
}
