//! What the page says after something was done. It comes back in the address, as one of a few words: nobody
//! can make the page say something of their own.

use axum::response::Response;
use http::Uri;

use super::View;
use crate::admin::authorization::to_page;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flash {
    Enabled,
    WasOn,
    Disabled,
    DisabledUnrecorded,
    WasOff,
    DisabledAlone,
    NotAccepted,
    Blocked,
    BlockedUnrecorded,
    Unblocked,
    NotBlocked,
    Ended,
    NoneEnded,
    NotTicked,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

impl Flash {
    const ALL: [Self; 14] = [
        Self::Enabled,
        Self::WasOn,
        Self::Disabled,
        Self::DisabledUnrecorded,
        Self::WasOff,
        Self::DisabledAlone,
        Self::NotAccepted,
        Self::Blocked,
        Self::BlockedUnrecorded,
        Self::Unblocked,
        Self::NotBlocked,
        Self::Ended,
        Self::NoneEnded,
        Self::NotTicked,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::WasOn => "was-on",
            Self::Disabled => "disabled",
            Self::DisabledUnrecorded => "disabled-unrecorded",
            Self::WasOff => "was-off",
            Self::DisabledAlone => "disabled-alone",
            Self::NotAccepted => "not-accepted",
            Self::Blocked => "blocked",
            Self::BlockedUnrecorded => "blocked-unrecorded",
            Self::Unblocked => "unblocked",
            Self::NotBlocked => "not-blocked",
            Self::Ended => "ended",
            Self::NoneEnded => "none-ended",
            Self::NotTicked => "not-ticked",
        }
    }

    fn notice(self, count: Option<u32>) -> Notice {
        let sessions = match count {
            None => String::new(),
            Some(1) => " 1 minted session has ended.".to_owned(),
            Some(count) => format!(" {count} minted sessions have ended."),
        };
        let (text, is_bad) = match self {
            Self::Enabled => ("External access is on.", false),
            Self::WasOn => ("External access was on already; nothing has changed.", false),
            Self::Disabled => ("External access is off.", false),
            Self::DisabledUnrecorded => (
                "External access is off. The database cannot be written: the record of this decision follows as soon as it can be.",
                true,
            ),
            Self::WasOff => ("External access was off already.", false),
            Self::DisabledAlone => (
                "External access is off, but not all minted sessions could be ended: the session store is away. Try again under Sessions.",
                true,
            ),
            Self::NotAccepted => {
                ("Nothing has changed: tick the box to say that you accept it.", true)
            }
            Self::Blocked => ("Blocked; its minted sessions end within two seconds.", false),
            Self::BlockedUnrecorded => (
                "Blocked; its minted sessions end within two seconds. The database cannot be written: the record of this decision follows as soon as it can be.",
                true,
            ),
            Self::Unblocked => ("Not blocked any more.", false),
            Self::NotBlocked => ("Nobody was blocked; nothing has changed.", false),
            Self::Ended => ("Done.", false),
            Self::NoneEnded => {
                ("There was no such session; perhaps it has ended by itself.", false)
            }
            Self::NotTicked => ("Nothing has ended: tick the box to end all sessions.", true),
        };
        Notice { text: text.to_owned() + &sessions, is_bad }
    }

    /// Back to a view, which says it.
    pub(super) fn at(self, view: View, count: Option<usize>) -> Response {
        let count = count.map_or_else(String::new, |count| format!("&count={count}"));
        to_page(&format!("{}?said={}{count}", view.path(), self.word()))
    }

    /// What an address has the page say.
    pub(super) fn in_address(uri: &Uri) -> Option<Notice> {
        let query = uri.query().unwrap_or_default();
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let value = |registration_inputs: &str| {
            pairs.iter().find(|(name, _)| name == registration_inputs).map(|(_, it)| it)
        };
        let word = value("said")?;
        let count = value("count").and_then(|count| count.parse().ok());
        let flash = Self::ALL.into_iter().find(|flash| flash.word() == word)?;
        Some(flash.notice(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_say_what_the_page_knows_alone() {
        let flash = |query: &str| Flash::in_address(&format!("/x?{query}").parse().unwrap());
        for one in Flash::ALL {
            assert!(flash(&format!("said={}", one.word())).is_some());
        }
        let ended = flash("said=ended&count=2").unwrap();
        assert_eq!(ended.text, "Done. 2 minted sessions have ended.");
        assert_eq!(flash("said=%3Cb%3E"), None);
        assert_eq!(flash("said=ended&count=%3Cb%3E").unwrap().text, "Done.");
    }
}
