//! FIPS module, as a build reports it. `make fips` tests that build.

use crate::{
    entra::Entra,
    world::{
        Kind, Store, client,
        gateway::{Gateway, fips_binary, run},
        json, settings,
    },
};

#[tokio::test]
async fn a_build_reports_whether_it_has_the_fips_module() {
    let is_fips = fips_binary().is_some();
    let version = String::from_utf8(run(&[], &["--version"]).await.stdout).unwrap();
    assert_eq!(version.trim_end().ends_with(", FIPS)"), is_fips, "{version}");

    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let gateway = Gateway::start(&settings(&entra, None, &store, &[])).await;
    gateway.wait_until_it_has_keys().await;
    let log = gateway.process.log();
    let line = log.lines().find(|line| line.contains("\"message\":\"listening\"")).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["fips"], is_fips, "{line}");
    let ready = gateway.ops_url("/health/ready").expect("operators' listener");
    assert_eq!(json(client().get(ready).send().await.unwrap()).await["fips"], is_fips);
}
