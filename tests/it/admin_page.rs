//! `/gateway/admin` in a real browser: the whole story, with and without scripts; readable by everybody, and
//! nothing but itself.

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

/// Where whoever is named signs in to SimpleChat.
fn sign_in(roles: &str) -> String {
    format!(
        "/getAToken?name=Grace+Hopper&preferred_username=grace%40contoso.example&oid=99999999-0000-0000-0000-000000000001&roles={roles}"
    )
}

async fn browser(gateway: &Gateway, roles: &str) -> Option<Browser> {
    if !Browser::is_to_be_had() {
        println!("skipped: there is no Chromium here");
        return None;
    }
    let browser = Browser::start().await;
    browser.show(View { width: 1280, theme: "light" }).await;
    browser.open(&gateway.url(&sign_in(roles))).await;
    Some(browser)
}

/// Nothing but the gateway was asked, and nothing was complained of.
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
async fn an_administrator_opts_in_watches_and_opts_out_on_two_instances() {
    let postgres = Postgres::start().await;
    let url = postgres.url();
    let more = [("GATEWAY_EXTERNAL_ACCESS", "managed"), ("DATABASE_URL", url.as_str())];
    let world = World::with(Kind::Redis, &more).await;
    let (here, there) = (&world.gateway, world.another_gateway().await);
    let Some(browser) = browser(here, "User,Admin").await else { return };

    browser.open(&here.url("/gateway/admin")).await;
    browser.says("#state", "External access is off").await;
    assert_eq!((metadata(here).await, metadata(&there).await), (404, 404));
    browser.click("[data-opens=enable-dialog]").await;
    let consent = browser.text("dialog[open]").await;
    assert!(consent.contains(crate::entra::TENANT) && consent.contains(crate::entra::CLIENT));
    assert!(consent.contains("Grace Hopper"), "whose decision it is: {consent}");
    browser.click("dialog[open] [type=submit]").await;
    assert!(browser.element("dialog[open]").await.is_displayed().await.unwrap(), "not unticked");
    browser.click("dialog[open] [name=accept]").await;
    browser.click("dialog[open] [type=submit]").await;
    let begun = Instant::now();
    for gateway in [here, &there] {
        until("metadata answers", async || metadata(gateway).await == 200).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    browser.says(".notice", "External access is on.").await;
    assert!(browser.text(".state").await.contains("Grace Hopper"));
    // The page finds out by itself.
    until("the page shows both instances", async || {
        browser.text("[data-live=instances]").await.contains("counts on all 2 instances")
    })
    .await;

    let session = crate::world::login(&there, &world.entra.token().build()).await;
    assert_eq!(status(here.url(API), &session).await, 200);
    browser.open(&here.url("/gateway/admin/activity?kind=login")).await;
    assert!(browser.text("table").await.contains("session created"));
    assert!(browser.text("table").await.contains("Ada Example"));
    browser.open(&here.url("/gateway/admin/sessions")).await;
    browser.says("#live", "1 live").await;
    browser.click("tbody button").await;
    browser.says(".notice", "Done. 1 minted session has ended.").await;
    assert_eq!(status(here.url(API), &session).await, 401, "a stranger");
    until("a stranger on the other as well", async || {
        status(there.url(API), &session).await == 401
    })
    .await;

    let session = crate::world::login(&there, &world.entra.token().build()).await;
    browser.open(&here.url("/gateway/admin")).await;
    browser.click("[name=end_sessions]").await;
    browser.click("form[aria-labelledby=disable] [type=submit]").await;
    browser.says(".notice", "External access is off. 1 minted session has ended.").await;
    for gateway in [here, &there] {
        until("metadata is gone", async || metadata(gateway).await == 404).await;
        until("so is the session", async || status(gateway.url(API), &session).await == 401).await;
    }
    browser.open(&here.url("/gateway/admin/activity")).await;
    let log = browser.text("table").await;
    for words in ["external access enabled", "exposure accepted", "external access disabled"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_quiet(&browser, here, "all along").await;
}

#[tokio::test]
async fn a_user_who_is_no_administrator_sees_no_page() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "User").await else { return };
    for view in ["", "/guide", "/sessions", "/activity", "/health", "/access/enable"] {
        browser.open(&world.gateway.url(&format!("/gateway/admin{view}"))).await;
        assert_eq!(browser.text("h1").await, "Not allowed", "{view}");
        let page = browser.text("main").await;
        for words in ["app role Admin", "Users and groups"] {
            assert!(page.contains(words), "{view}: {page}");
        }
        // No link leads to the page that has just refused.
        assert_eq!(links(&browser).await, json!(["/"]), "{view}");
    }
    for (name, view) in VIEWS {
        browser.show(view).await;
        look_at(&browser, &format!("admin-refused-{name}"), view).await;
    }
    browser.click("a[href='/']").await;
    until("SimpleChat's home page is shown", async || {
        browser.evaluate("location.pathname").await == "/"
    })
    .await;
}

/// Where links of the page lead.
async fn links(browser: &Browser) -> serde_json::Value {
    browser.evaluate("[...document.querySelectorAll('a')].map(it => it.getAttribute('href'))").await
}

// SimpleChat's sign-in ends on SimpleChat's home page.
#[tokio::test]
async fn a_stranger_signs_in_and_comes_back_to_the_page() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    if !Browser::is_to_be_had() {
        println!("skipped: there is no Chromium here");
        return;
    }
    let browser = Browser::start().await;
    let url = gateway.url("/gateway/admin/sessions");
    browser.open(&url).await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        look_at(&browser, &format!("admin-stranger-{name}"), view).await;
    }
    assert_eq!(browser.text("h1").await, "Sign in, then come back to this page");
    let page = browser.text("main").await;
    assert!(page.contains(&format!("come back to this address: {url}")), "{page}");
    assert_eq!(links(&browser).await, json!(["/login", "/gateway/admin/sessions"]));
    browser.open(&gateway.url(&sign_in("User,Admin"))).await;
    browser.open(&url).await;
    assert_eq!(browser.text("h1").await, "Sessions");
}

// A form of a session that has ended is not lost without a word.
#[tokio::test]
async fn a_form_of_a_session_that_has_ended_leads_to_the_sign_in_and_back() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    browser.forget().await;
    browser.click("main [name=all]").await;
    browser.click("form[aria-labelledby=end-many] [type=submit]").await;
    browser.says("h1", "Sign in, then come back to this page").await;
    let page = browser.text("main").await;
    assert!(page.contains("If you sent a form, nothing has changed"), "{page}");
    // Not the form's own address, which answers no GET.
    assert_eq!(links(&browser).await, json!(["/login", "/gateway/admin/sessions"]));
    assert!(page.contains(&gateway.url("/gateway/admin/sessions")), "{page}");
    assert!(!page.contains("/sessions/end"), "{page}");
}

// A page that renews itself says so when its session has ended.
#[tokio::test]
async fn an_open_page_says_that_its_session_has_ended() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "User,Admin").await else { return };
    browser.open(&world.gateway.url("/gateway/admin/health")).await;
    browser.forget().await;
    let notice =
        "Your session has ended: this page shows an earlier state. Load it again to sign in.";
    browser.says(".notice.bad", notice).await;
    assert_eq!(browser.text("h1").await, "Health");
}

#[tokio::test]
async fn all_of_it_works_without_scripts() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.run_scripts(false).await;
    browser.open(&gateway.url("/gateway/admin")).await;
    browser.click("[data-opens=enable-dialog]").await;
    browser.says("h1", "Enable external access?").await;
    browser.click("[name=accept]").await;
    browser.click("main [type=submit]").await;
    browser.says(".notice", "External access is on.").await;
    assert_eq!(metadata(gateway).await, 200);

    let session = world.login(&world.entra.token().build()).await;
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    browser.click("tbody a").await;
    browser.element("main [type=hidden][name=subject]").await;
    browser.click("form[aria-labelledby=end-many] [type=submit]").await;
    browser.says(".notice", "Done. 1 minted session has ended.").await;
    assert_eq!(status(gateway.url(API), &session).await, 401);

    browser.open(&gateway.url("/gateway/admin")).await;
    browser.click("[name=kind][value=subject]").await;
    browser.write("#who", crate::entra::USER_OID).await;
    browser.write("#own-span", "90m").await;
    browser.click("form[aria-labelledby=block] [type=submit]").await;
    browser.says(".notice", "Blocked; its minted sessions end within two seconds.").await;
    until("login is closed", async || {
        try_login(gateway, &world.entra.token().build()).await.status() == 403
    })
    .await;
    browser.click("form[action$=remove] button").await;
    browser.says(".notice", "Not blocked any more.").await;
    until("login is open", async || {
        try_login(gateway, &world.entra.token().build()).await.status() == 200
    })
    .await;
    browser.click("form[aria-labelledby=disable] [type=submit]").await;
    browser.says(".notice", "External access is off.").await;
    assert_eq!(metadata(gateway).await, 404);
    browser.forget().await;
    browser.open(&gateway.url("/gateway/admin")).await;
    browser.says("h1", "Sign in, then come back to this page").await;
}

#[tokio::test]
async fn keys_are_enough_and_the_dialog_keeps_the_focus() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let Some(browser) = browser(&world.gateway, "Admin").await else { return };
    browser.open(&world.gateway.url("/gateway/admin")).await;
    browser.press(Key::Tab + "").await;
    let focus = "document.activeElement.className";
    assert_eq!(browser.evaluate(focus).await, "skip", "first of all past what is the same");
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
    assert_eq!(browser.evaluate(back).await, "enable-dialog", "the focus is where it was");
    browser.press(Key::Enter + "").await;
    browser.click("[data-closes]").await;
    assert_eq!(browser.evaluate("document.querySelector('dialog').open").await, false);
}

#[tokio::test]
async fn each_view_can_be_used_by_everybody_and_asks_for_nothing_else() {
    let (world, _folder) = managed(Kind::Redis, &[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
    let gateway = &world.gateway;
    let Some(browser) = browser(gateway, "User,Admin").await else { return };
    browser.open(&gateway.url("/gateway/admin/sessions")).await;
    look(&browser, gateway, "admin-sessions-none-light", VIEWS[0].1).await;
    browser.open(&gateway.url("/gateway/admin")).await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        browser.click("[data-opens=enable-dialog]").await;
        look(&browser, gateway, &format!("admin-enable-{name}"), view).await;
        browser.click("[data-closes]").await;
        look(&browser, gateway, &format!("admin-off-{name}"), view).await;
    }
    browser.click("[data-opens=enable-dialog]").await;
    browser.click("dialog[open] [name=accept]").await;
    browser.click("dialog[open] [type=submit]").await;
    browser.says(".notice", "External access is on.").await;
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
    browser.says(".notice", "Blocked; its minted sessions end within two seconds.").await;
    browser.open(&gateway.url("/gateway/admin/guide")).await;
    until("the guide's check turns green by itself", async || {
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
            look(&browser, gateway, &format!("admin-{what}-{name}"), view).await;
            if matches!(what, "guide" | "activity") {
                unfold(&browser).await;
                look(&browser, gateway, &format!("admin-{what}-unfolded-{name}"), view).await;
            }
        }
    }
    // A refused caller's name is shown, whatever it is.
    let hostile = refused.claim("name", json!(HOSTILE)).claim("preferred_username", json!(HOSTILE));
    assert_eq!(try_login(gateway, &hostile.build()).await.status(), 403);
    until("the refusal is recorded", async || {
        browser.open(&gateway.url("/gateway/admin/activity")).await;
        browser.text("table").await.contains(HOSTILE)
    })
    .await;
    for (name, view) in VIEWS {
        browser.show(view).await;
        look(&browser, gateway, &format!("admin-activity-hostile-{name}"), view).await;
    }
}

/// A name that breaks out of a page that does not escape it, and of a table that does not wrap it.
const HOSTILE: &str = "</td><script>alert(1)</script><img src=x onerror=alert(1)>AVeryLongNameWithoutAnySpaceInItThatIsWiderThanATelephone";

const VIEWS: [(&str, View); 4] = [
    ("light", View { width: 1280, theme: "light" }),
    ("dark", View { width: 1280, theme: "dark" }),
    ("small-light", View { width: 360, theme: "light" }),
    ("small-dark", View { width: 360, theme: "dark" }),
];

/// As a person would, and axe.
async fn look(browser: &Browser, gateway: &Gateway, name: &str, view: View) {
    look_at(browser, name, view).await;
    assert_quiet(browser, gateway, name).await;
}

/// The same for a refusal: the browser's console notes its status.
async fn look_at(browser: &Browser, name: &str, view: View) {
    browser.assert_shown_in(view, name).await;
    let path = browser.screenshot(name).await;
    assert!(path.metadata().unwrap().len() > 10_000, "{name}: an empty picture");
    assert_eq!(browser.axe().await, [""; 0], "{name}");
    browser.assert_ids_stand_once(name).await;
    browser.assert_nothing_is_cut_off(name).await;
}

/// Opens everything that can be folded up.
async fn unfold(browser: &Browser) {
    browser
        .evaluate("document.querySelectorAll('details').forEach(it => { it.open = true; })")
        .await;
}
