//! Where a router is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a router, with the transport it speaks there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// WebSocket: `ws://HOST:PORT/PATH`.
    WebSocket { authority: String, path: String },
    /// RawSocket: `tcp://HOST:PORT`.
    Tcp { authority: String },
    /// RawSocket on a Unix socket: `unix:PATH`.
    Unix { path: PathBuf },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "{text:?} is none of ws://HOST:PORT/PATH, tcp://HOST:PORT and unix:PATH \
                 (TLS is not measured here)"
            )
        };
        let authority = |text: &str| {
            let port = text
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
            port.map(|_| text.to_owned()).ok_or_else(form)
        };
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix { path: path.trim_start_matches("//").into() });
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return Ok(Self::Tcp { authority: authority(rest)? });
        }
        let rest = text.strip_prefix("ws://").ok_or_else(form)?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        // Both go into a request line as they are.
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(form());
        }
        Ok(Self::WebSocket { authority: authority(host)?, path: path.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket { authority, path } => write!(f, "ws://{authority}{path}"),
            Self::Tcp { authority } => write!(f, "tcp://{authority}"),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "ws://127.0.0.1:18080/ws",
            "ws://[::1]:80/",
            "tcp://localhost:18082",
            "unix:run/weald.sock",
            "unix:/run/weald.sock",
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
        let short: Address = "ws://h:1".parse().unwrap();
        assert_eq!(short.to_string(), "ws://h:1/");
        assert_eq!("unix:///x".parse::<Address>().unwrap().to_string(), "unix:/x");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms() {
        for text in
            ["", "wss://h:1/", "ws://h/ws", "tcp://:1", "tcp://h:70000", "unix:", "ws://h:1/a b"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("ws://HOST:PORT/PATH"), "{text}: {error}");
        }
    }
}
