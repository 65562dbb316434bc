//! Lua scripts for Redis, sent by their SHA-1, and as text only when Redis does not have them.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use fred::{
    error::Error,
    interfaces::ClientLike,
    prelude::{Client, FromValue},
    types::{ClusterHash, CustomCommand, Value},
};

/// A Lua script. Its keys must share one slot of a cluster.
pub(crate) struct Script {
    text: &'static str,
    /// SHA-1 in hexadecimal digits, the argument of `EVALSHA`.
    name: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, name: hex::encode(digest) }
    }

    /// Runs the script. fred's own `evalsha` is not used: it admits no other command until it is answered.
    pub(crate) async fn run<R: FromValue>(
        &self,
        client: &Client,
        keys: &[String],
        args: &[Value],
    ) -> Result<R, Error> {
        let known = self.send(client, "EVALSHA", &self.name, keys, args).await;
        let answer = match known {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                self.send(client, "EVAL", self.text, keys, args).await
            }
            answer => answer,
        };
        answer?.convert()
    }

    async fn send(
        &self,
        client: &Client,
        command: &'static str,
        script: &str,
        keys: &[String],
        args: &[Value],
    ) -> Result<Value, Error> {
        let first_key = ClusterHash::Offset(2);
        let mut values = Vec::with_capacity(2 + keys.len() + args.len());
        values.push(script.into());
        values.push(Value::from(i64::try_from(keys.len()).unwrap_or(i64::MAX)));
        values.extend(keys.iter().map(|key| key.as_str().into()));
        values.extend_from_slice(args);
        client.custom(CustomCommand::new_static(command, first_key, false), values).await
    }
}
