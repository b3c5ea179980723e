// SPDX-License-Identifier: MIT OR Apache-2.0
//! An HTTP proxy on the way out that knows CONNECT (RFC 9110 9.3.6).

use std::{fmt, io, net::SocketAddr, str::FromStr};

use data_encoding::BASE64;
use pqvpn_wire::carrier::{NotHttp, ProxyAnswer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// Where programs are told of a proxy, in this order.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A proxy, as `http://[user:password@]host[:port]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host and port.
    authority: String,
    /// What it is shown, if it wants to know who asks.
    authorization: Option<Zeroizing<String>>,
    /// As it was written.
    text: Zeroizing<String>,
}

/// Which proxy the configuration wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxyChoice {
    /// The one that the environment names, if any.
    #[default]
    Auto,
    /// None.
    Off,
    /// This one.
    Use(Proxy),
}

impl ProxyChoice {
    /// The same for people to read: without what the proxy is shown.
    #[must_use]
    pub fn shown(&self) -> Self {
        let Self::Use(Proxy { authority, authorization: Some(_), .. }) = self else { return self.clone() };
        let text = Zeroizing::new(format!("http://***@{authority}"));
        Self::Use(Proxy { authority: authority.clone(), authorization: None, text })
    }

    /// The proxy, if there is one.
    pub(crate) fn proxy(&self) -> Option<Proxy> {
        match self {
            Self::Auto => Proxy::of_environment(),
            Self::Off => None,
            Self::Use(proxy) => Some(proxy.clone()),
        }
    }
}

impl FromStr for ProxyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" | "" => Ok(Self::Off),
            _ => text.parse().map(Self::Use).map_err(|error: BadProxy| format!("{error}, \"auto\" or \"none\"")),
        }
    }
}

/// As it is written in a configuration, a password included.
impl fmt::Display for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "none",
            Self::Use(proxy) => &proxy.text,
        })
    }
}

/// Why a text names no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected http://[user:password@]host[:port]")]
pub struct BadProxy;

/// Why a proxy did not connect us.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("the proxy: {0}")]
    Io(#[from] io::Error),
    #[error("the proxy answered {0}")]
    Refused(u16),
    #[error(transparent)]
    NotHttp(#[from] NotHttp),
}

impl Proxy {
    /// The one that the environment names.
    pub(crate) fn of_environment() -> Option<Self> {
        let named = VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
        let proxy = named.parse();
        // A password may be in it: the text is not shown.
        proxy.inspect_err(|error| tracing::warn!(%error, "the proxy that the environment names is not used")).ok()
    }

    /// Host and port of the proxy itself.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Has the proxy connect a stream with `to`.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub(super) async fn connect<S>(&self, mut stream: S, to: SocketAddr) -> Result<S, ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        // Byte by byte: what follows the head belongs to whoever is behind the proxy.
        let mut answer = ProxyAnswer::default();
        let status = loop {
            if let Some(status) = answer.push(stream.read_u8().await?)? {
                break status;
            }
        };
        match status {
            200..=299 => Ok(stream),
            other => Err(ProxyError::Refused(other)),
        }
    }
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(BadProxy),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@');
        if host.is_empty() || !host.chars().all(is_plain) {
            return Err(BadProxy);
        }
        let has_port = host.rsplit_once(':').is_some_and(|(name, _)| name.ends_with(']') || !name.contains(':'));
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let port = authority.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
        if port.is_none_or(|(name, port)| name.is_empty() || port == 0) {
            return Err(BadProxy);
        }
        let authorization = user.map(|user| Zeroizing::new(BASE64.encode(&unescaped(user))));
        Ok(Self { authority, authorization, text: Zeroizing::new(text.to_owned()) })
    }
}

/// `%40` and the like made plain (RFC 3986 2.1).
fn unescaped(text: &str) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.split_at_checked(2)).flatten();
        let escaped = escaped.and_then(|(code, after)| {
            let code =
                std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(code, 16).ok()?, after))
        });
        let (byte, after) = escaped.unwrap_or((first, after));
        plain.push(byte);
        rest = after;
    }
    plain
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Option<String>)> {
        let proxy: Proxy = text.parse().ok()?;
        let shown = proxy.authorization.map(|code| String::from_utf8(BASE64.decode(code.as_bytes()).unwrap()).unwrap());
        Some((proxy.authority, shown))
    }

    #[test]
    fn proxies_are_read_as_people_write_them() {
        let plain = |text: &str| Some((text.to_owned(), None));
        assert_eq!(read("http://proxy:3128"), plain("proxy:3128"));
        assert_eq!(read("HTTP://10.0.0.1:3128/"), plain("10.0.0.1:3128"));
        assert_eq!(read("proxy.example"), plain("proxy.example:80"));
        assert_eq!(read("http://[fd00::1]:8080"), plain("[fd00::1]:8080"));
        assert_eq!(read("http://[fd00::1]"), plain("[fd00::1]:80"));
        let named = Some(("proxy:3128".to_owned(), Some("me:p@ss%".to_owned())));
        assert_eq!(read("http://me:p%40ss%@proxy:3128"), named);
        for bad in [
            "",
            "http://",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://proxy:0",
            "http://proxy:x",
            "a b",
            "http://:80",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(format!("{:?}", "http://me:secret@proxy:1".parse::<Proxy>().unwrap()), "Proxy(proxy:1)");
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = |text: &str| text.parse::<ProxyChoice>().unwrap().shown().to_string();
        assert_eq!(shown("http://me:secret@proxy:3128"), "http://***@proxy:3128");
        assert_eq!(shown("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(shown("none"), "none");
    }

    async fn answered(answer: &[u8]) -> Result<Vec<u8>, ProxyError> {
        let (ours, mut theirs) = tokio::io::duplex(16_384);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let proxy: Proxy = "http://me:you@proxy:1".parse().unwrap();
        let mut stream = proxy.connect(ours, "192.0.2.1:443".parse().unwrap()).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        drop(stream);
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).await?;
        assert_eq!(
            asked,
            "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\nProxy-Authorization: Basic bWU6eW91\r\n\r\n"
        );
        Ok(rest)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_and_what_follows_its_answer_is_kept() {
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nhello").await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_or_talks_nonsense_is_left() {
        assert!(matches!(answered(b"HTTP/1.1 407 No\r\n\r\n").await, Err(ProxyError::Refused(407))));
        for bad in [&b"SSH-2.0-x\r\n\r\n"[..], b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 2 x\r\n\r\n", b"\r\n\r\n", &[b'a'; 9000]]
        {
            assert!(matches!(answered(bad).await, Err(ProxyError::NotHttp(_))));
        }
        assert!(matches!(answered(b"HTTP/1.1 200").await, Err(ProxyError::Io(_))));
    }
}
