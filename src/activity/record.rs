//! What is written down of who came in, who was refused, and who decided what.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    /// An administrator let machines in.
    ExternalAccessEnabled,
    /// An administrator shut them out.
    ExternalAccessDisabled,
    /// Somebody accepted that tenant and app ids become public.
    ExposureAccepted,
    /// A token was exchanged for a session.
    Login,
    /// A token was not.
    LoginDenied,
    /// A caller ended sessions.
    Logout,
    /// An administrator ended a session.
    SessionEndedByAdmin,
    /// A session came to its end.
    SessionExpired,
    /// A gateway started, or read its settings again.
    SettingsSeen,
    /// Somebody asked for what is an administrator's alone.
    AdminDenied,
    /// A subject is kept out for a while.
    SubjectBlocked,
    /// A subject is kept out no longer.
    SubjectUnblocked,
    /// A client app is kept out for a while.
    ClientBlocked,
    /// A client app is kept out no longer.
    ClientUnblocked,
}

impl EventKind {
    /// All of them, the most important first.
    pub(crate) const ALL: [Self; 14] = [
        Self::ExternalAccessEnabled,
        Self::ExternalAccessDisabled,
        Self::ExposureAccepted,
        Self::Login,
        Self::LoginDenied,
        Self::Logout,
        Self::SessionEndedByAdmin,
        Self::SessionExpired,
        Self::SettingsSeen,
        Self::AdminDenied,
        Self::SubjectBlocked,
        Self::SubjectUnblocked,
        Self::ClientBlocked,
        Self::ClientUnblocked,
    ];

    /// As in the database, in JSON and in telemetry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ExternalAccessEnabled => "external_access_enabled",
            Self::ExternalAccessDisabled => "external_access_disabled",
            Self::ExposureAccepted => "exposure_accepted",
            Self::Login => "login",
            Self::LoginDenied => "login_denied",
            Self::Logout => "logout",
            Self::SessionEndedByAdmin => "session_ended_by_admin",
            Self::SessionExpired => "session_expired",
            Self::SettingsSeen => "settings_seen",
            Self::AdminDenied => "admin_denied",
            Self::SubjectBlocked => "subject_blocked",
            Self::SubjectUnblocked => "subject_unblocked",
            Self::ClientBlocked => "client_blocked",
            Self::ClientUnblocked => "client_unblocked",
        }
    }

    /// What a full log lets go of first.
    pub(super) fn importance(self) -> Importance {
        match self {
            Self::LoginDenied | Self::AdminDenied => Importance::Denial,
            Self::Login
            | Self::Logout
            | Self::SessionEndedByAdmin
            | Self::SessionExpired
            | Self::SettingsSeen => Importance::Session,
            Self::ExternalAccessEnabled
            | Self::ExternalAccessDisabled
            | Self::ExposureAccepted
            | Self::SubjectBlocked
            | Self::SubjectUnblocked
            | Self::ClientBlocked
            | Self::ClientUnblocked => Importance::Decision,
        }
    }

    /// The kind of a name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::ExternalAccessEnabled => "external access enabled",
            Self::ExternalAccessDisabled => "external access disabled",
            Self::ExposureAccepted => "exposure accepted",
            Self::Login => "session created",
            Self::LoginDenied => "login denied",
            Self::Logout => "logged out",
            Self::SessionEndedByAdmin => "session ended by an administrator",
            Self::SessionExpired => "session expired",
            Self::SettingsSeen => "settings seen",
            Self::AdminDenied => "administration denied",
            Self::SubjectBlocked => "subject blocked",
            Self::SubjectUnblocked => "subject unblocked",
            Self::ClientBlocked => "client app blocked",
            Self::ClientUnblocked => "client app unblocked",
        }
    }
}

/// Importance of a record. The trigger `activity_keeps` knows the kinds that are no decisions by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Importance {
    Denial,
    Session,
    Decision,
}

impl Importance {
    /// In the order in which a full log lets go of them.
    pub(super) const ALL: [Self; 3] = [Self::Denial, Self::Session, Self::Decision];
}

/// Who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Actor {
    /// Entra's object id, where a verified token or a live session told it.
    #[schema(
        required = true,
        max_length = 64,
        pattern = "^[0-9A-Za-z-]*$",
        example = "00000000-0000-0000-0000-0000000000aa"
    )]
    pub(crate) oid: Option<String>,
    #[schema(required = true, max_length = 1024, example = "Ada Lovelace")]
    pub(crate) name: Option<String>,
    #[schema(required = true, max_length = 1024, example = "ada@contoso.example")]
    pub(crate) email: Option<String>,
}

/// Who decides, and how that came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Author {
    pub(crate) actor: Actor,
    pub(crate) address: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was done.
    Success,
    /// It was refused.
    Failure,
}

impl Outcome {
    /// As in the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Reason for which a login ends another session of the same subject.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EndReason {
    /// The session was sent along with the login.
    Replaced,
    /// The subject has reached `GATEWAY_SESSIONS_PER_SUBJECT`, which is `limit`.
    TooMany { limit: usize },
}

impl EndReason {
    pub(super) const REPLACED: &str = "replaced";
    pub(super) const TOO_MANY: &str = "too_many";
    const LIMIT: &str = "GATEWAY_SESSIONS_PER_SUBJECT=";

    /// The limit in a record's text.
    pub(super) fn limit_in(text: &str) -> Option<u32> {
        text.strip_prefix(Self::LIMIT)?.parse().ok()
    }
}

/// One entry of the activity log. Never a token, a cookie or a session's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ActivityRecord)]
pub(crate) struct Record {
    /// A UUID.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) id: String,
    /// When; inside in Unix milliseconds.
    #[serde(serialize_with = "as_rfc3339", deserialize_with = "of_rfc3339")]
    #[schema(value_type = String, format = DateTime, max_length = 24)]
    pub(crate) at: i64,
    pub(crate) kind: EventKind,
    pub(crate) outcome: Outcome,
    pub(crate) actor: Actor,
    /// The client app's id.
    #[schema(required = true, max_length = 256, pattern = "^[ -~]*$")]
    pub(crate) client: Option<String>,
    /// Whom it is about: Entra's object id.
    #[schema(required = true, max_length = 64, pattern = "^[0-9A-Za-z-]*$")]
    pub(crate) subject: Option<String>,
    /// The session's handle, which names it and opens nothing.
    #[schema(required = true, max_length = 16, pattern = "^[0-9a-f]{16}$")]
    pub(crate) session: Option<String>,
    /// Where it came from.
    #[schema(required = true, max_length = 64, pattern = "^[0-9A-Fa-f.:]+$")]
    pub(crate) address: Option<String>,
    /// As in the log.
    #[schema(required = true, max_length = 64, pattern = "^[0-9a-f-]+$")]
    pub(crate) request_id: Option<String>,
    /// Why, in one of a few words.
    #[schema(required = true, max_length = 64, pattern = "^[a-z_]+$")]
    pub(crate) reason: Option<String>,
    /// What was accepted or seen; for `too_many`, the limit as a setting.
    #[schema(required = true, max_length = 16_384)]
    pub(crate) text: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn as_rfc3339<S: Serializer>(millis: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::rfc3339(*millis))
}

fn of_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    clock::millis_of(&text).ok_or_else(|| D::Error::custom("not a time as RFC 3339 has it"))
}

impl Record {
    /// Something that has just been done.
    pub(crate) fn new(kind: EventKind) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            at: clock::millis(),
            kind,
            outcome: Outcome::Success,
            actor: Actor::default(),
            client: None,
            subject: None,
            session: None,
            address: None,
            request_id: None,
            reason: None,
            text: None,
        }
    }

    /// Something that was refused.
    pub(crate) fn refused(kind: EventKind, reason: &str) -> Self {
        Self { outcome: Outcome::Failure, reason: Some(reason.to_owned()), ..Self::new(kind) }
    }

    /// A session that a login ended. Its public kind is `logout`, as from the first version on.
    pub(crate) fn ended(reason: EndReason) -> Self {
        let (code, text) = match reason {
            EndReason::Replaced => (EndReason::REPLACED, None),
            EndReason::TooMany { limit } => {
                (EndReason::TOO_MANY, Some(format!("{}{limit}", EndReason::LIMIT)))
            }
        };
        Self { reason: Some(code.to_owned()), text, ..Self::new(EventKind::Logout) }
    }

    /// Whose doing it is.
    pub(crate) fn by(self, author: &Author) -> Self {
        let Author { actor, address, request_id } = author.clone();
        Self { actor, address, request_id, ..self }
    }

    /// Into the log, and by OpenTelemetry to where logs go. It may say what it likes: secrets are no part of
    /// it.
    pub(crate) fn emit(&self) {
        tracing::info!(
            event.name = self.kind.name(),
            event.id = self.id,
            outcome = self.outcome.name(),
            request_id = self.request_id,
            subject = self.subject,
            client = self.client,
            client.address = self.address,
            session = self.session,
            actor.oid = self.actor.oid,
            actor.name = self.actor.name,
            actor.email = self.actor.email,
            reason = self.reason,
            text = self.text,
            "{}",
            self.summary()
        );
    }
}

/// Which records are asked for; all that is given must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<EventKind>,
    /// Part of somebody's object id, name or e-mail address: who acted, or whom it is about.
    pub(crate) person: Option<String>,
    /// A client app's id.
    pub(crate) client: Option<String>,
    /// A session's handle.
    pub(crate) session: Option<String>,
    /// Unix milliseconds, from there on.
    pub(crate) since: Option<i64>,
    /// Unix milliseconds, up to there.
    pub(crate) until: Option<i64>,
    /// Older than this one: its time and id.
    pub(crate) before: Option<(i64, String)>,
    /// How many at most.
    pub(crate) limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_name() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(EventKind::of("Login"), None);
    }
}
