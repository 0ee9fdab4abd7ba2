//! The opening handshake of a WebSocket: what a request asks for, and the answer.
//!
//! What it guarantees: the subprotocol is the first of the client's offer that is known; browsers get in from configured
//! origins only; every refusal has the status code and the headers the protocol asks for.
//!
//! What it refuses: clients that offer no subprotocol of WAMP, and extensions.

use crate::info::HttpInfo;
use http::header::{
    CONNECTION, COOKIE, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use thiserror::Error;
use tungstenite::handshake::derive_accept_key;
use weald_wamp::Subprotocol;

/// Which web pages may open connections. Clients that are no browsers send no origin, and are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    list: Vec<String>,
}

/// An origin that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("origin {0:?} is not of the form scheme://host[:port], and not *")]
pub struct OriginError(pub String);

impl Origins {
    /// Those listed, each as browsers write it (`https://example.com`); `*` stands for all.
    ///
    /// # Errors
    /// One of them is no origin.
    pub fn new(list: &[String]) -> Result<Self, OriginError> {
        let mut origins = Self { any: false, list: Vec::new() };
        for entry in list {
            if entry == "*" {
                origins.any = true;
                continue;
            }
            let host = entry.split_once("://").map(|(_, host)| host);
            let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            if !is_origin {
                return Err(OriginError(entry.clone()));
            }
            origins.list.push(entry.to_ascii_lowercase());
        }
        Ok(origins)
    }

    fn allows(&self, origin: Option<&HeaderValue>) -> bool {
        let Some(origin) = origin else { return true };
        self.any
            || self
                .list
                .iter()
                .any(|known| origin.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
    }
}

/// Why a request opens no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not ask for one.
    #[error("not a request for a WebSocket")]
    NoUpgrade,
    /// It is not a GET of HTTP/1.1 or lacks the key.
    #[error("malformed request for a WebSocket")]
    Malformed,
    /// A version other than 13.
    #[error("WebSocket version is not 13")]
    Version,
    /// A web page that may not.
    #[error("origin is not allowed")]
    Origin,
    /// No subprotocol of WAMP among those offered.
    #[error("no known subprotocol is offered")]
    Subprotocol,
}

/// What a good request has led to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) http: HttpInfo,
    pub(crate) response: Response<String>,
}

/// Judges a request.
pub(crate) fn open<B>(request: &Request<B>, origins: &Origins) -> Result<Opened, Refusal> {
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Refusal::Malformed);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::Malformed)?;
    if !is_key(key.as_bytes()) {
        return Err(Refusal::Malformed);
    }
    if !origins.allows(headers.get(ORIGIN)) {
        return Err(Refusal::Origin);
    }
    let subprotocol = Subprotocol::select(tokens(headers, &SEC_WEBSOCKET_PROTOCOL))
        .ok_or(Refusal::Subprotocol)?;
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol.name()));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept.map_err(|_invalid| Refusal::Malformed)?);
    let text = |name: &HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join("; "))
    };
    let http = HttpInfo {
        target: request.uri().to_string(),
        origin: text(&ORIGIN),
        cookies: text(&COOKIE),
        user_agent: text(&USER_AGENT),
    };
    Ok(Opened { subprotocol, http, response })
}

/// The answer to a request that is refused.
pub(crate) fn refuse(why: Refusal) -> Response<String> {
    let mut response = Response::new(format!("{why}\n"));
    let (status, header) = match why {
        Refusal::NoUpgrade => {
            (StatusCode::UPGRADE_REQUIRED, Some((UPGRADE, HeaderValue::from_static("websocket"))))
        }
        Refusal::Version => (
            StatusCode::UPGRADE_REQUIRED,
            Some((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))),
        ),
        Refusal::Malformed | Refusal::Subprotocol => (StatusCode::BAD_REQUEST, None),
        Refusal::Origin => (StatusCode::FORBIDDEN, None),
    };
    *response.status_mut() = status;
    response.headers_mut().extend(header);
    response
}

/// The elements of a list that may be spread over several headers.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|other| other.eq_ignore_ascii_case(token))
}

/// Whether it is the base64 of sixteen octets.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |octet: &u8| octet.is_ascii_alphanumeric() || [b'+', b'/'].contains(octet);
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}
