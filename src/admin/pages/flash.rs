//! Flash messages: the result of a form, shown once on the next page. The URL carries one of a fixed
//! set of words, so that a link cannot put other text on the page.

use axum::response::Response;
use serde::Deserialize;

use super::View;
use super::to_page;

/// Query parameter with the word.
const PARAMETER: &str = "done";

/// Result of a form.
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

/// Flash message as shown.
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
            Some(1) => " 1 gateway-issued session ended.".to_owned(),
            Some(count) => format!(" {count} gateway-issued sessions ended."),
        };
        let (text, is_bad) = match self {
            Self::Enabled => ("External access enabled.", false),
            Self::WasOn => ("External access was already enabled. Nothing has changed.", false),
            Self::Disabled => ("External access disabled.", false),
            Self::DisabledUnrecorded => (
                "External access disabled. Database unavailable: this decision is recorded when the database can be written.",
                true,
            ),
            Self::WasOff => ("External access was already disabled.", false),
            Self::DisabledAlone => (
                "External access disabled, but not all gateway-issued sessions ended: session store unavailable. Retry on the Sessions page.",
                true,
            ),
            Self::NotAccepted => {
                ("Nothing has changed. To enable external access, select the check box.", true)
            }
            Self::Blocked => {
                ("Blocked. Gateway-issued sessions are revoked within two seconds.", false)
            }
            Self::BlockedUnrecorded => (
                "Blocked. Gateway-issued sessions are revoked within two seconds. Database unavailable: this decision is recorded when the database can be written.",
                true,
            ),
            Self::Unblocked => ("Unblocked.", false),
            Self::NotBlocked => ("The user or app was not blocked. Nothing has changed.", false),
            Self::Ended => ("Done.", false),
            Self::NoneEnded => ("Session not found; it may have expired.", false),
            Self::NotTicked => {
                ("No session ended. To end all sessions, select the check box.", true)
            }
        };
        Notice { text: text.to_owned() + &sessions, is_bad }
    }

    /// Redirects to a view that shows the message.
    pub(super) fn at(self, view: View, count: Option<usize>) -> Response {
        let count = count.map_or_else(String::new, |count| format!("&count={count}"));
        to_page(&format!("{}?{PARAMETER}={}{count}", view.path(), self.word()))
    }
}

/// Message named by the query of a page. Read from pairs, because a reader derived for the struct
/// refuses a repeated parameter: the first one applies.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Vec<(String, String)>")]
pub(super) struct FlashQuery {
    /// `None`: no message, or an unknown word.
    pub(super) notice: Option<Notice>,
}

impl From<Vec<(String, String)>> for FlashQuery {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let value = |of| pairs.iter().find(|(name, _)| name == of).map(|(_, it)| &**it);
        let word = value(PARAMETER);
        let flash = Flash::ALL.into_iter().find(|flash| Some(flash.word()) == word);
        let count = value("count").and_then(|count| count.parse().ok());
        Self { notice: flash.map(|flash| flash.notice(count)) }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    #[test]
    fn only_known_words_and_a_count_are_accepted_from_the_url() {
        let notice = |query: &str| {
            let uri = format!("/x?{query}").parse().unwrap();
            Query::<FlashQuery>::try_from_uri(&uri).unwrap().0.notice
        };
        for one in Flash::ALL {
            assert!(notice(&format!("done={}", one.word())).is_some());
        }
        let ended = notice("done=ended&count=2").unwrap();
        assert_eq!(ended.text, "Done. 2 gateway-issued sessions ended.");
        assert_eq!(notice("done=%3Cb%3E"), None);
        assert_eq!(notice("done=ended&count=%3Cb%3E").unwrap().text, "Done.");
    }
}
