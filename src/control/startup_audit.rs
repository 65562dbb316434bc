//! Record of the loaded configuration in the activity log, at startup and on reload.

use super::exposure;
use crate::{
    activity::{Activity, Actor, Author, EventKind, Record},
    config::{Config, ExternalAccessMode},
};

/// Records the configuration; with `GATEWAY_EXTERNAL_ACCESS=on` also the accepted exposure text and the name in the
/// setting.
pub(crate) async fn record(activity: &Activity, config: &Config, instance: &str) {
    let name = match &config.external_access {
        ExternalAccessMode::On { accepted_by } => Some(accepted_by.clone()),
        ExternalAccessMode::Off | ExternalAccessMode::Managed => None,
    };
    let text = format!(
        "GATEWAY_EXTERNAL_ACCESS={}, version {} ({}), instance {instance}",
        config.external_access.word(),
        env!("CARGO_PKG_VERSION"),
        env!("COMMIT"),
    );
    activity
        .record(Record { text: Some(text), ..Record::new(EventKind::ConfigurationLoaded) })
        .await;
    if name.is_some() {
        let author = Author { actor: Actor { name, ..Actor::default() }, ..Author::default() };
        let text = exposure::text(&config.entra.authority, &config.resource);
        let (text, reason) = (Some(text), Some("setting".to_owned()));
        let accepted = Record { reason, text, ..Record::new(EventKind::ExposureAccepted) };
        activity.record(accepted.by(&author)).await;
    }
}
