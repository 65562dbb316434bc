//! Records of the activity log and their filter.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock;

/// Kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Kind)]
pub(crate) enum EventKind {
    /// An administrator enabled external access.
    ExternalAccessEnabled,
    /// An administrator disabled external access.
    ExternalAccessDisabled,
    /// An administrator, or the operator by a setting, accepted that tenant and app ids become public.
    ExposureAccepted,
    /// A token was exchanged for a session.
    Login,
    /// A login was denied.
    LoginDenied,
    /// A caller ended sessions.
    Logout,
    /// An administrator ended a session.
    SessionEndedByAdmin,
    /// A session expired.
    SessionExpired,
    /// A gateway loaded its configuration: at startup or on a reload.
    #[serde(rename = "settings_seen")]
    ConfigurationLoaded,
    /// Administrative access was denied.
    AdminDenied,
    /// A subject was blocked temporarily.
    SubjectBlocked,
    /// A subject was unblocked.
    SubjectUnblocked,
    /// A client app was blocked temporarily.
    ClientBlocked,
    /// A client app was unblocked.
    ClientUnblocked,
}

impl EventKind {
    /// All kinds, the most important first.
    pub(crate) const ALL: [Self; 14] = [
        Self::ExternalAccessEnabled,
        Self::ExternalAccessDisabled,
        Self::ExposureAccepted,
        Self::Login,
        Self::LoginDenied,
        Self::Logout,
        Self::SessionEndedByAdmin,
        Self::SessionExpired,
        Self::ConfigurationLoaded,
        Self::AdminDenied,
        Self::SubjectBlocked,
        Self::SubjectUnblocked,
        Self::ClientBlocked,
        Self::ClientUnblocked,
    ];

    /// Name in the database, in JSON and in telemetry.
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
            Self::ConfigurationLoaded => "settings_seen",
            Self::AdminDenied => "admin_denied",
            Self::SubjectBlocked => "subject_blocked",
            Self::SubjectUnblocked => "subject_unblocked",
            Self::ClientBlocked => "client_blocked",
            Self::ClientUnblocked => "client_unblocked",
        }
    }

    /// Order in which a full log drops records.
    pub(super) fn importance(self) -> Importance {
        match self {
            Self::LoginDenied | Self::AdminDenied => Importance::Denial,
            Self::Login
            | Self::Logout
            | Self::SessionEndedByAdmin
            | Self::SessionExpired
            | Self::ConfigurationLoaded => Importance::Session,
            Self::ExternalAccessEnabled
            | Self::ExternalAccessDisabled
            | Self::ExposureAccepted
            | Self::SubjectBlocked
            | Self::SubjectUnblocked
            | Self::ClientBlocked
            | Self::ClientUnblocked => Importance::Decision,
        }
    }

    /// Kind with a name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Displayed text.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::ExternalAccessEnabled => "external access enabled",
            Self::ExternalAccessDisabled => "external access disabled",
            Self::ExposureAccepted => "disclosure accepted",
            Self::Login => "session created",
            Self::LoginDenied => "login denied",
            Self::Logout => "logged out",
            Self::SessionEndedByAdmin => "session ended by an administrator",
            Self::SessionExpired => "session expired",
            Self::ConfigurationLoaded => "configuration loaded",
            Self::AdminDenied => "administrative access denied",
            Self::SubjectBlocked => "subject blocked",
            Self::SubjectUnblocked => "subject unblocked",
            Self::ClientBlocked => "client app blocked",
            Self::ClientUnblocked => "client app unblocked",
        }
    }
}

/// Importance of a record. The trigger `activity_keeps` lists the names of the kinds that are not decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Importance {
    Denial,
    Session,
    Decision,
}

impl Importance {
    /// In the order in which a full log drops them.
    pub(super) const ALL: [Self; 3] = [Self::Denial, Self::Session, Self::Decision];
}

/// Actor of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Actor {
    /// Entra's object id, from a verified token or an active session.
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

/// Author of a decision: the actor, and the request that carried it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Author {
    pub(crate) actor: Actor,
    pub(crate) address: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// Outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The action was carried out.
    Success,
    /// The action was refused.
    Failure,
}

impl Outcome {
    /// Name in the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Reasons for which a login ends another session of the same subject.
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

    /// Limit from the text of a record.
    pub(super) fn limit_in(text: &str) -> Option<u32> {
        text.strip_prefix(Self::LIMIT)?.parse().ok()
    }
}

/// Entry of the activity log. Contains no token, cookie or session id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ActivityRecord)]
pub(crate) struct Record {
    /// A UUID.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) id: String,
    /// Time of the event; in code in Unix milliseconds.
    #[serde(serialize_with = "as_rfc3339", deserialize_with = "of_rfc3339")]
    #[schema(value_type = String, format = DateTime, max_length = 24)]
    pub(crate) at: i64,
    pub(crate) kind: EventKind,
    pub(crate) outcome: Outcome,
    pub(crate) actor: Actor,
    /// Client application id.
    #[schema(required = true, max_length = 256, pattern = "^[ -~]*$")]
    pub(crate) client: Option<String>,
    /// Entra's object id of the user or service principal that the event concerns.
    #[schema(required = true, max_length = 64, pattern = "^[0-9A-Za-z-]*$")]
    pub(crate) subject: Option<String>,
    /// Handle of the session: identifies it and grants no access.
    #[schema(required = true, max_length = 16, pattern = "^[0-9a-f]{16}$")]
    pub(crate) session: Option<String>,
    /// Address of the caller.
    #[schema(required = true, max_length = 64, pattern = "^[0-9A-Fa-f.:]+$")]
    pub(crate) address: Option<String>,
    /// Request id, as in the log.
    #[schema(required = true, max_length = 64, pattern = "^[0-9a-f-]+$")]
    pub(crate) request_id: Option<String>,
    /// Reason code.
    #[schema(required = true, max_length = 64, pattern = "^[a-z_]+$")]
    pub(crate) reason: Option<String>,
    /// Accepted text or loaded configuration; for `too_many`, the limit as a setting.
    #[schema(required = true, max_length = 16_384)]
    pub(crate) text: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn as_rfc3339<S: Serializer>(millis: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::rfc3339(*millis))
}

fn of_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    clock::millis_of(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
}

impl Record {
    /// Record of an action that was carried out now.
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

    /// Record of a refused action.
    pub(crate) fn refused(kind: EventKind, reason: &str) -> Self {
        Self { outcome: Outcome::Failure, reason: Some(reason.to_owned()), ..Self::new(kind) }
    }

    /// Record of a session that a login ended. Its public kind is `logout`, as since the first version.
    pub(crate) fn ended(reason: EndReason) -> Self {
        let (code, text) = match reason {
            EndReason::Replaced => (EndReason::REPLACED, None),
            EndReason::TooMany { limit } => {
                (EndReason::TOO_MANY, Some(format!("{}{limit}", EndReason::LIMIT)))
            }
        };
        Self { reason: Some(code.to_owned()), text, ..Self::new(EventKind::Logout) }
    }

    /// Sets the author.
    pub(crate) fn by(self, author: &Author) -> Self {
        let Author { actor, address, request_id } = author.clone();
        Self { actor, address, request_id, ..self }
    }

    /// Emits the record to the log and to telemetry. Nothing is redacted, because records contain no secrets.
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

/// Filter of records; all given conditions must match.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<EventKind>,
    /// Part of the object id, name or e-mail address of the actor or subject.
    pub(crate) person: Option<String>,
    /// Client application id.
    pub(crate) client: Option<String>,
    /// Handle of the session.
    pub(crate) session: Option<String>,
    /// Earliest time, in Unix milliseconds, inclusive.
    pub(crate) since: Option<i64>,
    /// Latest time, in Unix milliseconds, exclusive.
    pub(crate) until: Option<i64>,
    /// Time and id of a record; only older records match.
    pub(crate) before: Option<(i64, String)>,
    /// Maximum number of records.
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
