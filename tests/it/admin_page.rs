//! `/gateway/admin` in a real browser: the complete administration sequence, with and without
//! scripts, accessibility of each view, and no request to other hosts.

use std::time::{Duration, Instant};

use serde_json::json;
use thirtyfour::Key;

use crate::world::{
    API, Kind, World,
    administrators::{managed, metadata},
    browser::{Browser, View},
    gateway::Gateway,
    postgres::Postgres,
    process::until,
    status, try_login,
};

/// SimpleChat's sign-in URL for the named user with these roles.
fn sign_in(roles: &str) -> String {
    format!(
        "/getAToken?name=Grace+Hopper&preferred_username=grace%40contoso.example&oid=99999999-0000-0000-0000-000000000001&roles={roles}"
    )
}

async fn browser(gateway: &Gateway, roles: &str) -> Option<Browser> {
    if !Browser::is_installed() {
        println!("skipped: Chromium is not available");
        return None;
    }
    let browser = Browser::start().await;
    browser.show(View { width: 1280, theme: "light" }).await;
    browser.open(&gateway.url(&sign_in(roles))).await;
    Some(browser)
}

/// Asserts that only the gateway received requests and that the console is empty.
async fn assert_quiet(browser: &Browser, gateway: &Gateway, here: &str) {
    let foreign: Vec<_> = browser
        .requests()
        .await
        .into_iter()
        .filter(|url| !url.starts_with(&gateway.url("/")))
        .collect();
    assert_eq!(foreign, [""; 0], "{here}");
    assert_eq!(browser.console().await, [""; 0], "{here}");
}

#[tokio::test]
async fn an_administrator_enables_monitors_and_disables_access_on_two_instances() {
    let postgres = Postgres::start().await;
    let url = postgres.url();
    let more = [("GATEWAY_EXTERNAL_ACCESS", "managed"), ("DATABASE_URL", url.as_str())];
    let world = World::with(Kind::Redis, &more).await;
    let (here, there) = (&world.gateway, world.another_gateway().await);
    let Some(browser) = browser(here, "User,Admin").await else { return };

    browser.open(&here.url("/gateway/admin")).await;
    browser.has_text("#state", "External access is off").await;
    assert_eq!((metadata(here).await, metadata(&there).await), (404, 404));
    browser.click("[data-opens=enable-dialog]").await;
    let consent = browser.text("dialog[open]").await;
    assert!(consent.contains(crate::entra::TENANT) && consent.contains(crate::entra::CLIENT));
    assert!(consent.contains("Grace Hopper"), "the dialog names the administrator: {consent}");
    browser.click("dialog[open] [type=submit]").await;
    assert!(
        browser.element("dialog[open]").await.is_displayed().await.unwrap(),
        "the consent box is required"
    );
    browser.click("dialog[open] [name=accept]").await;
    browser.click("dialog[open] [type=submit]").await;
    let begun = Instant::now();
    for gateway in [here, &there] {
        until("metadata answers", async || metadata(gateway).await == 200).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    browser.has_text(".notice", "External access enabled.").await;
    assert!(browser.text(".state").await.contains("Grace Hopper"));
    // The page refreshes itself.
    until("the page shows both instances", async || {
        browser.text("[data-live=instances]").await.contains("Applied on 2 of 2 instances.")
    })
    .await;

    let session = crate::world::login(&there, &world.entra.token().build()).await;
    assert_eq!(status(here.url(API), &session).await, 200);
    browser.open(&here.url("/gateway/admin/activity?kind=login")).await;
    assert!(browser.text("table").await.contains("session created"));
    assert!(browser.text("table").await.contains("Ada Example"));
    browser.open(&here.url("/gateway/admin/sessions")).await;
    browser.has_text("#live", "1 active").await;
    browser.click("tbody button").await;
    browser.has_text(".notice", "Done. 1 gateway-issued session ended.").await;
    assert_eq!(status(here.url(API), &session).await, 401, "the session is revoked");
    until("the session is revoked on the other instance", async || {
        status(there.url(API), &session).await == 401
    })
    .await;

    let session = crate::world::login(&there, &world.entra.token().build()).await;
    browser.open(&here.url("/gateway/admin")).await;
    browser.click("[name=end_sessions]").await;
    browser.click("form[aria-labelledby=disable] [type=submit]").await;
    browser.has_text(".notice", "External access disabled. 1 gateway-issued session ended.").await;
    for gateway in [here, &there] {
        until("metadata answers 404", async || metadata(gateway).await == 404).await;
        until("the session is revoked", async || status(gateway.url(API), &session).await == 401)
            .await;
    }
    browser.open(&here.url("/gateway/admin/activity")).await;
    let log = browser.text("table").await;
    for words in ["external access enabled", "disclosure accepted", "external access disabled"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_quiet(&browser, here, "whole sequence").await;
}

#[tokio::test]
async fn a_user_who_is_not_an_administrator_gets_no_admin_page() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "User").await else { return };
    for view in ["", "/guide", "/sessions", "/activity", "/health", "/access/enable"] {
        browser.open(&world.gateway.url(&format!("/gateway/admin{view}"))).await;
        assert_eq!(browser.text("h1").await, "Access denied", "{view}");
        let page = browser.text("main").await;
        for words in ["app role Admin", "Users and groups"] {
            assert!(page.contains(words), "{view}: {page}");
        }
        // No link leads back to the refused page.
        assert_eq!(links(&browser).await, json!(["/"]), "{view}");
    }
    for (name, view) in VIEWS {
        browser.show(view).await;
        check_rendering(&browser, &format!("admin-refused-{name}"), view).await;
    }
    browser.click("a[href='/']").await;
    until("SimpleChat's home page is shown", async || {
        browser.evaluate("location.pathname").await == "/"
    })
    .await;
}

/// Targets of all links on the page.
async fn links(browser: &Browser) -> serde_json::Value {
    browser.evaluate("[...document.querySelectorAll('a')].map(it => it.getAttribute('href'))").await
}

// SimpleChat's sign-in always ends on SimpleChat's home page.
#[tokio::test]
async fn the_page_leads_an_anonymous_user_to_sign_in_and_back() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    if !Browser::is_installed() {
        println!("skipped: Chromium is not available");
        return;
    }
    let browser = Browser::start().await;
    let url = gateway.url("/gateway/admin/sessions");
    browser.open(&url).await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        check_rendering(&browser, &format!("admin-stranger-{name}"), view).await;
    }
    assert_eq!(browser.text("h1").await, "Sign in, then return to this page");
    let page = browser.text("main").await;
    assert!(page.contains(&format!("return to this URL: {url}")), "{page}");
    assert_eq!(links(&browser).await, json!(["/login", "/gateway/admin/sessions"]));
    browser.open(&gateway.url(&sign_in("User,Admin"))).await;
    browser.open(&url).await;
    assert_eq!(browser.text("h1").await, "Sessions");
}

// A form submitted after its session ended is not lost silently.
#[tokio::test]
async fn a_form_submitted_after_its_session_ended_leads_to_sign_in_and_back() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    browser.forget().await;
    browser.click("main [name=all]").await;
    browser.click("form[aria-labelledby=end-many] [type=submit]").await;
    browser.has_text("h1", "Sign in, then return to this page").await;
    let page = browser.text("main").await;
    assert!(page.contains("If you sent a form, nothing has changed"), "{page}");
    // Not the form's own URL, which does not answer GET.
    assert_eq!(links(&browser).await, json!(["/login", "/gateway/admin/sessions"]));
    assert!(page.contains(&gateway.url("/gateway/admin/sessions")), "{page}");
    assert!(!page.contains("/sessions/end"), "{page}");
}

// A page that refreshes itself reports the end of its session.
#[tokio::test]
async fn an_open_page_reports_that_its_session_has_ended() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "User,Admin").await else { return };
    browser.open(&world.gateway.url("/gateway/admin/health")).await;
    browser.forget().await;
    let notice = "Your session has ended. This page is out of date: reload it to sign in.";
    browser.has_text(".notice.bad", notice).await;
    assert_eq!(browser.text("h1").await, "Health");
}

#[tokio::test]
async fn every_administrative_action_works_without_scripts() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.run_scripts(false).await;
    browser.open(&gateway.url("/gateway/admin")).await;
    browser.click("[data-opens=enable-dialog]").await;
    browser.has_text("h1", "Enable external access?").await;
    browser.click("[name=accept]").await;
    browser.click("main [type=submit]").await;
    browser.has_text(".notice", "External access enabled.").await;
    assert_eq!(metadata(gateway).await, 200);

    let session = world.login(&world.entra.token().build()).await;
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    browser.click("tbody a").await;
    browser.element("main [type=hidden][name=subject]").await;
    browser.click("form[aria-labelledby=end-many] [type=submit]").await;
    browser.has_text(".notice", "Done. 1 gateway-issued session ended.").await;
    assert_eq!(status(gateway.url(API), &session).await, 401);

    browser.open(&gateway.url("/gateway/admin")).await;
    browser.click("[name=kind][value=subject]").await;
    browser.write("#who", crate::entra::USER_OID).await;
    browser.write("#own-span", "90m").await;
    browser.click("form[aria-labelledby=block] [type=submit]").await;
    browser
        .has_text(".notice", "Blocked. Gateway-issued sessions are revoked within two seconds.")
        .await;
    until("login is closed", async || {
        try_login(gateway, &world.entra.token().build()).await.status() == 403
    })
    .await;
    browser.click("form[action$=remove] button").await;
    browser.has_text(".notice", "Unblocked.").await;
    until("login is open", async || {
        try_login(gateway, &world.entra.token().build()).await.status() == 200
    })
    .await;
    browser.click("form[aria-labelledby=disable] [type=submit]").await;
    browser.has_text(".notice", "External access disabled.").await;
    assert_eq!(metadata(gateway).await, 404);
    browser.forget().await;
    browser.open(&gateway.url("/gateway/admin")).await;
    browser.has_text("h1", "Sign in, then return to this page").await;
}

#[tokio::test]
async fn the_page_works_by_keyboard_and_the_dialog_holds_the_focus() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "Admin").await else { return };
    browser.open(&world.gateway.url("/gateway/admin")).await;
    browser.press(Key::Tab + "").await;
    let focus = "document.activeElement.className";
    assert_eq!(browser.evaluate(focus).await, "skip", "the first stop is the skip link");
    browser.evaluate("document.querySelector('[data-opens]').focus()").await;
    browser.press(Key::Enter + "").await;
    browser.element("dialog[open]").await;
    let is_inside = "document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body";
    let mut inside = 0;
    for _ in 0..12 {
        browser.press(Key::Tab + "").await;
        assert_eq!(browser.evaluate(is_inside).await, true);
        let tag = browser.evaluate("document.activeElement.tagName").await;
        inside += usize::from(tag != "BODY");
    }
    assert!(inside >= 6, "{inside}");
    browser.press(Key::Escape + "").await;
    assert_eq!(browser.evaluate("document.querySelector('dialog').open").await, false);
    let back = "document.activeElement.dataset.opens";
    assert_eq!(browser.evaluate(back).await, "enable-dialog", "the focus returns to the button");
    browser.press(Key::Enter + "").await;
    browser.click("[data-closes]").await;
    assert_eq!(browser.evaluate("document.querySelector('dialog').open").await, false);
}

#[tokio::test]
async fn every_view_is_accessible_and_loads_nothing_from_other_hosts() {
    let (world, _folder) = managed(Kind::Redis, &[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    check_view(&browser, gateway, "admin-sessions-none-light", VIEWS[0].1).await;
    browser.open(&gateway.url("/gateway/admin")).await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        browser.click("[data-opens=enable-dialog]").await;
        check_view(&browser, gateway, &format!("admin-enable-{name}"), view).await;
        browser.click("[data-closes]").await;
        check_view(&browser, gateway, &format!("admin-off-{name}"), view).await;
    }
    browser.click("[data-opens=enable-dialog]").await;
    browser.click("dialog[open] [name=accept]").await;
    browser.click("dialog[open] [type=submit]").await;
    browser.has_text(".notice", "External access enabled.").await;
    for (oid, person) in [
        ("aaaaaaaa-0000-0000-0000-000000000001", "Ada Lovelace"),
        ("aaaaaaaa-0000-0000-0000-000000000002", "Katherine Johnson"),
        ("aaaaaaaa-0000-0000-0000-000000000003", "Mary Jackson"),
    ] {
        let address =
            format!("{}@contoso.example", person.split(' ').next().unwrap().to_lowercase());
        let token = world.entra.token().oid(oid).claim("name", json!(person));
        world.login(&token.claim("preferred_username", json!(address)).build()).await;
    }
    let refused = world.entra.token().roles(&["User"]).claim("scp", json!("x"));
    assert_eq!(try_login(gateway, &refused.build()).await.status(), 403);
    browser.write("#who", "aaaaaaaa-0000-0000-0000-000000000009").await;
    browser.click("form[aria-labelledby=block] [type=submit]").await;
    browser
        .has_text(".notice", "Blocked. Gateway-issued sessions are revoked within two seconds.")
        .await;
    browser.open(&gateway.url("/gateway/admin/guide")).await;
    until("the guide's check passes without a reload", async || {
        browser.evaluate("document.querySelectorAll('[data-check=honoured].ok').length").await == 1
    })
    .await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        for (what, path) in [
            ("on", "/gateway/admin"),
            ("guide", "/gateway/admin/guide"),
            ("sessions", "/gateway/admin/sessions"),
            ("activity", "/gateway/admin/activity"),
            ("health", "/gateway/admin/health"),
        ] {
            browser.open(&gateway.url(path)).await;
            check_view(&browser, gateway, &format!("admin-{what}-{name}"), view).await;
            if matches!(what, "guide" | "activity") {
                unfold(&browser).await;
                check_view(&browser, gateway, &format!("admin-{what}-unfolded-{name}"), view).await;
            }
        }
    }
    // A refused caller's name is shown, whatever it contains.
    let hostile = refused.claim("name", json!(HOSTILE)).claim("preferred_username", json!(HOSTILE));
    assert_eq!(try_login(gateway, &hostile.build()).await.status(), 403);
    until("the refusal is recorded", async || {
        browser.open(&gateway.url("/gateway/admin/activity")).await;
        browser.text("table").await.contains(HOSTILE)
    })
    .await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        check_view(&browser, gateway, &format!("admin-activity-hostile-{name}"), view).await;
    }
}

/// Name that breaks out of a page that does not escape it, and of a table that does not wrap it.
const HOSTILE: &str = "</td><script>alert(1)</script><img src=x onerror=alert(1)>AVeryLongNameWithoutAnySpaceInItThatIsWiderThanATelephone";

const VIEWS: [(&str, View); 4] = [
    ("light", View { width: 1280, theme: "light" }),
    ("dark", View { width: 1280, theme: "dark" }),
    ("small-light", View { width: 360, theme: "light" }),
    ("small-dark", View { width: 360, theme: "dark" }),
];

/// Checks rendering, accessibility, requests and console of a view.
async fn check_view(browser: &Browser, gateway: &Gateway, name: &str, view: View) {
    check_rendering(browser, name, view).await;
    assert_quiet(browser, gateway, name).await;
}

/// Checks rendering and accessibility only: the console reports the status of a refusal.
async fn check_rendering(browser: &Browser, name: &str, view: View) {
    browser.assert_shown_in(view, name).await;
    let path = browser.screenshot(name).await;
    assert!(path.metadata().unwrap().len() > 10_000, "{name}: the screenshot is empty");
    assert_eq!(browser.axe().await, [""; 0], "{name}");
    browser.assert_ids_are_unique(name).await;
    browser.assert_nothing_is_cut_off(name).await;
}

/// Opens every collapsible part.
async fn unfold(browser: &Browser) {
    browser
        .evaluate("document.querySelectorAll('details').forEach(it => { it.open = true; })")
        .await;
}
