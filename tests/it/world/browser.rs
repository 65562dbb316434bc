//! A real headless browser: Debian's Chromium with its driver. It resolves no name and stores
//! nothing.

use std::{fs, path::PathBuf, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    By, CapabilitiesHelper, ChromeCapabilities, ChromiumLikeCapabilities, DesiredCapabilities,
    TypingData, WebDriver, WebElement,
};

use super::{flask::in_repository, process::Process};

/// Viewport and colour scheme of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) width: u32,
    /// `light` or `dark`.
    pub(crate) theme: &'static str,
}

/// The running browser. Chromium ends with its driver.
pub(crate) struct Browser {
    driver: WebDriver,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// True if Chromium is installed. Ubuntu packages it as a snap only, which some machines cannot
    /// run; on other systems a missing Chromium fails the test.
    pub(crate) fn is_installed() -> bool {
        let is_there = Command::new("chromedriver").arg("--version").output().is_ok();
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        is_there || !system.lines().any(|line| line == "ID=ubuntu")
    }

    pub(crate) async fn start() -> Self {
        let mut command = Command::new("chromedriver");
        let mut process = Process::start(command.arg("--port=0"), &[], "TERM");
        let port = process.stdout_after("ChromeDriver was started successfully on port ").await;
        let url = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
        let profile = tempfile::tempdir().expect("a temporary folder");
        let capabilities = capabilities(&profile);
        let driver = WebDriver::new(url, capabilities).await.expect("a session");
        // `Drop` would block the thread that must deliver the answer.
        driver.clone().leak().expect("an open session");
        Self { driver, _process: process, _profile: profile }
    }

    /// Opens an address.
    pub(crate) async fn open(&self, url: &str) {
        self.driver.goto(url).await.expect("a page");
    }

    /// Shows pages in this viewport and colour scheme.
    pub(crate) async fn show(&self, view: View) {
        let features = json!([{"name": "prefers-color-scheme", "value": view.theme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
        // Mobile browsers draw scroll bars over the page.
        let is_small = view.width < 600;
        let size =
            json!({"width": view.width, "height": 900, "deviceScaleFactor": 1, "mobile": is_small});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The first element that matches a CSS selector; waits for one.
    pub(crate) async fn element(&self, selector: &str) -> WebElement {
        let begun = std::time::Instant::now();
        loop {
            match self.driver.find(By::Css(selector)).await {
                Ok(element) => return element,
                Err(error) if begun.elapsed() > super::process::TEST_TIMEOUT => {
                    panic!("{selector}: {error}")
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }

    /// Clicks an element.
    pub(crate) async fn click(&self, selector: &str) {
        self.element(selector).await.click().await.unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// Replaces the text of an input.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        element.clear().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
        element.send_keys(text).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Presses keys in the focused element.
    pub(crate) async fn press(&self, keys: impl Into<TypingData>) {
        self.driver.action_chain().send_keys(keys).perform().await.expect("keys");
    }

    /// Text of an element. Retries if the element is replaced during the read.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let begun = std::time::Instant::now();
        loop {
            match self.element(selector).await.text().await {
                Ok(text) => return text,
                Err(error) if begun.elapsed() > super::process::TEST_TIMEOUT => {
                    panic!("{selector}: {error}")
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until an element has this text; a page may still be loading.
    pub(crate) async fn has_text(&self, selector: &str, text: &str) {
        let condition = format!("{selector} has text {text:?}");
        super::process::until(&condition, async || {
            let found = self.driver.find(By::Css(selector)).await;
            match found {
                // The element may be removed during the read.
                Ok(element) => element.text().await.is_ok_and(|shown| shown == text),
                Err(_) => false,
            }
        })
        .await;
    }

    /// Enables or disables scripts in pages.
    pub(crate) async fn run_scripts(&self, is_wanted: bool) {
        let value = json!({"value": !is_wanted});
        self.devtools("Emulation.setScriptExecutionDisabled", value).await;
    }

    /// Deletes all cookies.
    pub(crate) async fn forget(&self) {
        self.devtools("Network.clearBrowserCookies", json!({})).await;
    }

    /// Asserts that the page has its style sheet, the theme of the view, and no horizontal
    /// overflow.
    pub(crate) async fn assert_shown_in(&self, view: View, name: &str) {
        let styled = self.evaluate("getComputedStyle(document.body).backgroundColor").await;
        let paper = if view.theme == "dark" { "rgb(20, 24, 27)" } else { "rgb(251, 251, 249)" };
        assert_eq!(styled, paper, "{name}: style sheet and theme are applied");
        let root = "document.documentElement";
        let beyond = format!("[innerWidth, {root}.scrollWidth - {root}.clientWidth]");
        assert_eq!(self.evaluate(&beyond).await, json!([view.width, 0]), "{name}");
    }

    /// Asserts that no text is cut off in a scrollable area; scroll bars may be hidden until the
    /// user scrolls.
    pub(crate) async fn assert_nothing_is_cut_off(&self, name: &str) {
        let cut_off = "[...document.querySelectorAll('pre, table, tbody th, td, dd, dialog, .scrolls')] \
            .filter(e => e.checkVisibility() && (e.scrollWidth > e.clientWidth \
                || e.matches('pre') && e.scrollHeight > e.clientHeight)) \
            .map(e => e.outerHTML.slice(0, 200))";
        assert_eq!(self.evaluate(cut_off).await, json!([]), "{name}");
    }

    /// Asserts that no id occurs twice in the page.
    pub(crate) async fn assert_ids_are_unique(&self, name: &str) {
        let twice = "[...document.querySelectorAll('[id]')].map(e => e.id) \
            .filter((id, at, all) => all.indexOf(id) !== at)";
        assert_eq!(self.evaluate(twice).await, json!([]), "{name}");
    }

    /// Value of an expression evaluated in the page.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        let answer = self.driver.execute(script, Vec::new()).await.expect("a value");
        answer.json().clone()
    }

    /// Accessibility violations found by axe: `rule: reason, element`.
    pub(crate) async fn axe(&self) -> Vec<String> {
        let path = "target/node/openapi/node_modules/axe-core/axe.min.js";
        let axe = fs::read_to_string(in_repository(path)).expect("axe; `make browser` sets it up");
        self.driver.execute(axe, Vec::new()).await.expect("axe");
        let run = "const done = arguments[arguments.length - 1]; \
            axe.run(document, {preload: false}).then(done, error => done({failed: String(error)}))";
        let found = self.driver.execute_async(run, Vec::new()).await.expect("a result");
        let found = found.json().clone();
        let passes = found["passes"].as_array().map_or(0, Vec::len);
        assert!(passes > 10, "axe checked too little: {passes} rules passed: {}", found["failed"]);
        let violations = found["violations"].as_array().expect("a list");
        let described =
            |it: &Value| format!("{}: {}, {}", it["id"], it["help"], it["nodes"][0]["html"]);
        violations.iter().map(described).collect()
    }

    /// Console messages.
    pub(crate) async fn console(&self) -> Vec<String> {
        let entries = self.driver.get_log("browser").await.expect("a log");
        entries.into_iter().map(|entry| entry.message).collect()
    }

    /// Addresses requested since the last call, the page's own included. The browser's own pages
    /// and `data:` addresses are excluded, because they send nothing.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let entries = self.driver.get_log("performance").await.expect("a log");
        let url = |message: &str| {
            let event: Value = serde_json::from_str(message).ok()?;
            let event = &event["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            is_request.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        let urls = entries.iter().filter_map(|entry| url(&entry.message));
        urls.filter(|url| !url.starts_with("chrome:") && !url.starts_with("data:")).collect()
    }

    /// Writes the whole page to `target/screenshots/NAME.png`; under an open dialog, the visible
    /// part.
    pub(crate) async fn screenshot(&self, name: &str) -> PathBuf {
        let is_whole = self.evaluate("!document.querySelector('dialog[open]')").await;
        let how = json!({"format": "png", "captureBeyondViewport": is_whole});
        let shot = self.devtools("Page.captureScreenshot", how).await;
        let bytes = STANDARD.decode(shot["data"].as_str().expect("data")).expect("base64");
        let folder = in_repository("target/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, bytes).expect("a file");
        path
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(command, parameters).await.expect(command)
    }
}

fn capabilities(profile: &TempDir) -> ChromeCapabilities {
    let mut capabilities = DesiredCapabilities::chrome();
    let profile = format!("--user-data-dir={}", profile.path().display());
    for argument in [
        "--headless=new",
        // Chromium's sandbox does not work as root.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        // With a pipe, Chromium ends when its driver closes the pipe.
        "--remote-debugging-pipe",
        &profile,
    ] {
        capabilities.add_arg(argument).expect("an argument");
    }
    let logs = json!({"browser": "ALL", "performance": "ALL"});
    capabilities.set("goog:loggingPrefs", logs).expect("a capability");
    capabilities
}
