//! `make demo`: prints the HTTP exchanges of the handshake.
//!
//! Stand-in Entra, real upstream, the gateway's own binary; session files, or Redis with `--store
//! redis`. Each step prints the expected behaviour; the first deviation ends the demo with exit
//! code 1. After the last step everything keeps running, unless `--once` is given.

#[path = "../entra/mod.rs"]
mod entra;
#[path = "../it/world/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::{
    entra::{TENANT, USER_OID},
    world::{API, Kind, World, client, session_in},
};

/// The handshake on screen.
#[derive(Parser)]
struct Arguments {
    /// Session store of upstream.
    #[arg(long, value_enum, default_value = "files")]
    store: StoreName,
    /// Ends after the last step.
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreName {
    Files,
    Redis,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let kind = match arguments.store {
        StoreName::Files => Kind::Files,
        StoreName::Redis => Kind::Redis,
    };
    println!(
        "Starting a stand-in for Entra, SimpleChat's stand-in under gunicorn, and the gateway …"
    );
    let world = World::start(kind).await;
    if let Err(problem) = play(&world).await {
        println!("\nFAILED: {problem}");
        println!("\nThe gateway's log:\n{}", world.gateway.process.log());
        return ExitCode::FAILURE;
    }
    println!("\nAll steps succeeded.");
    if !arguments.once {
        stay(&world).await;
    }
    ExitCode::SUCCESS
}

async fn play(world: &World) -> Result<(), String> {
    let gateway = &world.gateway;
    let ask = |method: Method, path: &str| client().request(method, gateway.url(path));
    let get = |path: &str| ask(Method::GET, path).header("accept", "application/json");
    let with = |request: RequestBuilder, session: &str| {
        request.header("cookie", format!("session={session}"))
    };

    step("1", "A client that knows only the URL asks where to get a token.");
    show(get("/.well-known/oauth-protected-resource/external/login"), 200).await?;

    step("2", "Logging in without a token: the challenge points to the same document.");
    show(ask(Method::POST, "/external/login"), 401).await?;

    step("3", "Entra issues a token for a user with the app roles User and ExternalApi.");
    let token = world.entra.token().build();
    println!("    {}\n    {}", shortened(&token), Value::Object(world.entra.token().claims()));

    step(
        "4",
        "The token is exchanged for a Flask session. The answer leaves once the store has it.",
    );
    let answer = show(ask(Method::POST, "/external/login").bearer_auth(&token), 200).await?;
    let session = session_in(&answer);

    step("5", "SimpleChat, unmodified, accepts the session as its own.");
    show(with(get(API), &session), 200).await?;
    show(with(get("/api/user/settings"), &session), 200).await?;

    step("6", "Without the session the same call is anonymous and refused.");
    show(get(API), 401).await?;

    step("7", "A token with the role ExternalApi alone: the login warns, SimpleChat refuses.");
    let weak = world.entra.token().roles(&["ExternalApi"]).build();
    let answer = show(ask(Method::POST, "/external/login").bearer_auth(&weak), 200).await?;
    show(with(get(API), &session_in(&answer)), 403).await?;

    step("8", "The guard: /external/* is for the role ExternalApi, not for User or Admin.");
    let admin = world.entra.token().roles(&["User", "Admin"]).build();
    let documents = format!("/external/public_documents?user_id={USER_OID}");
    show(get(&documents).bearer_auth(&admin), 403).await?;
    show(get(&documents).bearer_auth(world.entra.token().v1().build()), 200).await?;
    show(get("//external/public_documents").bearer_auth(&token), 400).await?;
    show(get("/external/healthcheck"), 200).await?;

    step("9", "Logging out ends the session for good: the next call is anonymous again.");
    show(with(ask(Method::POST, "/external/logout"), &session), 204).await?;
    show(with(get(API), &session), 401).await?;
    Ok(())
}

fn step(number: &str, what: &str) {
    println!("\n── {number}. {what}");
}

/// Sends a request, prints it and its answer, and checks the status. The returned answer has no
/// body; the body is printed.
async fn show(request: RequestBuilder, expected: u16) -> Result<Response, String> {
    let request = request.build().map_err(|error| error.to_string())?;
    let query = request.url().query().map(|query| format!("?{query}")).unwrap_or_default();
    println!("\n    > {} {}{query} HTTP/1.1", request.method(), request.url().path());
    for (name, value) in request.headers() {
        println!("    > {name}: {}", shortened(value.to_str().unwrap_or_default()));
    }
    let what = format!("{} {}", request.method(), request.url().path());
    let mut answer = client().execute(request).await.map_err(|error| error.to_string())?;
    println!("    < HTTP/1.1 {}", answer.status());
    let printed = ["content-type", "www-authenticate", "set-cookie", "cache-control", "location"];
    for (name, value) in
        answer.headers().iter().filter(|(name, _)| printed.contains(&name.as_str()))
    {
        println!("    < {name}: {}", value.to_str().unwrap_or_default());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&body);
    let pretty =
        serde_json::from_str::<Value>(&text).and_then(|json| serde_json::to_string_pretty(&json));
    for line in pretty.as_deref().unwrap_or(&text).lines() {
        println!("    {line}");
    }
    if answer.status() == expected {
        Ok(answer)
    } else {
        Err(format!("{what} answered {}, not {expected}", answer.status()))
    }
}

/// Truncates long values; the secrets here are throwaway ones.
fn shortened(text: &str) -> String {
    if text.len() > 90 {
        format!("{} … ({} bytes)", &text[..60], text.len())
    } else {
        text.to_owned()
    }
}

async fn stay(world: &World) {
    let url = world.gateway.url("");
    let token = world.entra.token().expires_in(4 * 3600).build();
    println!(
        "\nEverything stays up until Ctrl-C. Tenant {TENANT}; a token good for four hours:\n\n\
         export TOKEN={token}\n\n\
         curl -si {url}/.well-known/oauth-protected-resource\n\
         curl -si -X POST -H \"Authorization: Bearer $TOKEN\" -c jar {url}/external/login\n\
         curl -si -b jar {url}/api/user/settings\n\
         curl -si -X POST -b jar {url}/external/logout\n\
         curl -s {}\n",
        world.gateway.ops_url("/health/ready").unwrap_or_default()
    );
    let _ = tokio::signal::ctrl_c().await;
}
