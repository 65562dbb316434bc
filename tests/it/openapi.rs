//! The document reviewers read is the one the code makes.

use serde_json::Value;

use crate::{
    entra::{CLIENT, TENANT},
    world::{Kind, World, client, flask::in_repository, gateway::run, json},
};

#[tokio::test]
async fn the_committed_document_is_the_one_the_program_prints() {
    let printed = String::from_utf8(run(&[], &["openapi"]).await.stdout).unwrap();
    let committed = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
    assert_eq!(committed, printed, "run `make docs`");
}

#[tokio::test]
async fn it_is_served_and_names_nobody() {
    let world = World::start(Kind::Files).await;
    let answer = client().get(world.gateway.url("/gateway/openapi.json")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let text = answer.text().await.unwrap();
    assert!(!text.contains(TENANT) && !text.contains(CLIENT));
    let committed = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
    assert_eq!(text, committed);
}

fn document() -> Value {
    let committed = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
    serde_json::from_str(&committed).unwrap()
}

#[test]
fn every_route_says_who_may_call_it_and_what_it_answers() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["type"], "openIdConnect");
    assert_eq!(document["components"]["securitySchemes"]["sessionCookie"]["in"], "cookie");
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let here = format!("{method} {path}");
            let security = operation["security"].as_array().unwrap_or_else(|| panic!("{here}"));
            let is_open = security.is_empty();
            assert!(security.iter().all(|one| *one != serde_json::json!({})), "{here}");
            assert_eq!(is_open, operation["x-public-because"].is_string(), "{here} says why");
            let must_be_closed = path.starts_with("/gateway/api/")
                || path.starts_with("/external/")
                    && !path.starts_with("/external/healthcheck")
                    && (method != "options" || path.contains('{'));
            let is_administrators = security.iter().any(|one| one.get("administrator").is_some());
            assert_eq!(is_administrators, path.starts_with("/gateway/api/"), "{here}");
            assert_eq!(is_open, !must_be_closed, "{here}");
            assert!(
                operation["operationId"].is_string() && operation["summary"].is_string(),
                "{here}"
            );
            for (status, response) in operation["responses"].as_object().unwrap() {
                let shared = response["$ref"].as_str().and_then(|it| document.pointer(&it[1..]));
                let response = shared.unwrap_or(response);
                assert!(!response["description"].as_str().unwrap().is_empty(), "{here} {status}");
            }
        }
    }
    let login = &document["paths"]["/external/login"]["post"]["responses"];
    for status in ["200", "400", "401", "403", "404", "405", "429", "503"] {
        assert!(login[status].is_object(), "{status}");
    }
}

#[tokio::test]
async fn what_login_answers_is_what_the_document_says() {
    let world = World::start(Kind::Files).await;
    let answer = crate::world::try_login(&world.gateway, &world.entra.token().build()).await;
    let body = json(answer).await;
    let schema = &document()["components"]["schemas"]["SessionCreated"];
    for name in schema["required"].as_array().unwrap() {
        assert!(body.get(name.as_str().unwrap()).is_some(), "{name}");
    }
    for name in body.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not documented");
    }
}
