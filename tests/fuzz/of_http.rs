//! Cookies and `Authorization`.

use std::convert::Infallible;

use super::bearer;
use crate::{config::CookieConfig, flask::cookie::SessionCookie};

/// The header that is left has no expired session, by upstream's parsing or ours.
pub(crate) fn cookie(data: &[u8]) {
    let _ = bearer::parse_lines(data.split(|b| *b == b'\n'));
    let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    let config = CookieConfig {
        name: "session".to_owned(),
        path: "/".to_owned(),
        domain: None,
        same_site: "Lax",
        secure: None,
    };
    let cookie = SessionCookie(&config);
    let Ok(read) = cookie.read::<Infallible>(lines.iter().copied(), |_| Ok(true));
    assert!(read.active.is_none());
    let Some(left) = read.header else { return };
    let Ok(again) = cookie.read::<Infallible>([&*left].into_iter(), |_| Ok(true));
    assert_eq!(again.header.as_deref(), Some(&*left), "{}", left.escape_ascii());
    assert!(again.ended.is_none(), "{}", left.escape_ascii());
}
