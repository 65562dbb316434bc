//! `/gateway/docs` in a real browser: content, accessibility, and no other request.

use serde_json::{Value, json};

use crate::{
    entra::{CLIENT, TENANT},
    world::{
        Kind, alone,
        browser::{Browser, View},
        client,
        flask::in_repository,
    },
};

#[tokio::test]
async fn the_docs_page_contains_the_openapi_document_and_runs_no_script() {
    let (gateway, _entra, _store) = alone(Kind::Files, &[]).await;
    let answer = client().get(gateway.url("/gateway/docs")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    let page = answer.text().await.unwrap();
    for absent in ["<script", "javascript:", "http://", "src=", "@import", "url(", TENANT, CLIENT] {
        assert!(!page.contains(absent), "{absent}");
    }
    let text = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            let texts = [&operation["summary"], &operation["x-public-because"]];
            for text in texts.into_iter().filter_map(Value::as_str) {
                assert!(page.contains(&text.replace('\'', "&#39;")), "{method} {path}: {text}");
            }
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
}

#[tokio::test]
async fn the_docs_page_is_accessible_and_makes_no_other_request() {
    if !Browser::is_installed() {
        println!("skipped: Chromium is not available");
        return;
    }
    let (gateway, _entra, _store) = alone(Kind::Files, &[]).await;
    let url = gateway.url("/gateway/docs");
    let browser = Browser::start().await;
    for (name, view) in [
        ("docs-light", View { width: 1280, theme: "light" }),
        ("docs-dark", View { width: 1280, theme: "dark" }),
        ("docs-small", View { width: 360, theme: "light" }),
        ("docs-small-dark", View { width: 360, theme: "dark" }),
    ] {
        browser.show(view).await;
        browser.open(&url).await;
        let heading = browser.evaluate("document.querySelector('h1').textContent").await;
        assert_eq!(heading, "SimpleChat Gateway", "{name}");
        browser.assert_shown_in(view, name).await;
        let path = browser.screenshot(name).await;
        assert!(path.metadata().unwrap().len() > 20_000, "{name}: the screenshot is empty");
        assert_eq!(browser.requests().await, [url.as_str()], "{name}");
        assert_eq!(browser.console().await, [""; 0], "{name}");
        assert_eq!(browser.axe().await, [""; 0], "{name}");
    }
    // Every link within the page has a target.
    let dead = "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1)) \
        .filter(id => !document.getElementById(id))";
    assert_eq!(browser.evaluate(dead).await, json!([]));
    browser.assert_ids_are_unique(&url).await;
}
