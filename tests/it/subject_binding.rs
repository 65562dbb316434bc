//! A user's token gives access to that user's own documents: every `user_id` must equal its `oid`.

use std::fmt::Write as _;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    dice::Dice,
    entra::USER_OID,
    world::{Kind, World, client, json, process::until, scripted::Scripted},
};

const OTHER_USER: &str = "cccccccc-0000-1111-2222-dddddddddddd";
const USERS: &str = "/external/test/users";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=B";

async fn send(
    world: &World,
    token: &str,
    query: &str,
    content_type: &str,
    body: String,
) -> Response {
    let url = world.gateway.url(&format!("{USERS}{query}"));
    let request = client().request(Method::POST, url).bearer_auth(token);
    request.header("content-type", content_type).body(body).send().await.unwrap()
}

fn multipart(user: &str) -> String {
    format!(
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pdf\"\r\n\
         Content-Type: application/pdf\r\n\r\n{}\r\n\
         --B\r\nContent-Disposition: form-data; name=\"user_id\"\r\n\r\n{user}\r\n--B--\r\n",
        "x".repeat(5000)
    )
}

#[tokio::test]
async fn a_users_token_may_name_only_its_own_user() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    let own = format!("user_id={USER_OID}");
    let other = format!("user_id={OTHER_USER}");
    for (query, content_type, body) in [
        (format!("?{own}"), "text/plain", String::new()),
        (String::new(), FORM, own.clone()),
        (String::new(), MULTIPART, multipart(USER_OID)),
    ] {
        let answer = send(&world, &token, &query, content_type, body).await;
        assert_eq!(answer.status(), 200, "{query} {content_type}");
        let received = json(answer).await;
        let found =
            [&received["query"], &received["body"]].map(|users| users.as_array().unwrap().len());
        assert_eq!(found.iter().sum::<usize>(), 1, "{received}");
    }
    let requests = |log: &str| log.matches(USERS).count();
    until("upstream has logged the requests", async || requests(&world.flask.log()) == 3).await;
    for (query, content_type, body) in [
        (format!("?{other}"), "text/plain", String::new()),
        (format!("?a=1&{own}&{other}"), "text/plain", String::new()),
        (format!("?%75ser_id={OTHER_USER}"), FORM, own.clone()),
        (String::new(), FORM, format!("{own}&{other}")),
        (String::new(), MULTIPART, multipart(OTHER_USER)),
    ] {
        let answer = send(&world, &token, &query, content_type, body).await;
        assert_eq!(answer.status(), 403, "{query} {content_type}");
        assert!(!answer.headers().contains_key("www-authenticate"));
        assert_eq!(json(answer).await["detail"], "Every user_id must be the subject of this token");
    }
    let odd = multipart(OTHER_USER).replace("name=\"user_id\"", "name=user_id");
    assert_eq!(send(&world, &token, "", MULTIPART, odd).await.status(), 400);
    assert_eq!(requests(&world.upstream_log().await), 3, "no refused request reached upstream");

    // An app may act for any user.
    let app = world.entra.token().app_only().build();
    let received =
        json(send(&world, &app, &format!("?{other}"), MULTIPART, multipart(OTHER_USER)).await)
            .await;
    assert_eq!(received, json!({"query": [OTHER_USER], "body": [OTHER_USER]}));
}

#[tokio::test]
async fn subject_binding_can_be_turned_off() {
    let world = World::with(Kind::Files, &[("GATEWAY_BIND_SUBJECT", "off")]).await;
    let token = world.entra.token().build();
    let query = format!("?user_id={OTHER_USER}");
    let received = json(send(&world, &token, &query, MULTIPART, multipart(OTHER_USER)).await).await;
    assert_eq!(received, json!({"query": [OTHER_USER], "body": [OTHER_USER]}));
}

/// The upload is in progress when its `user_id` arrives.
#[tokio::test]
async fn an_upload_for_another_user_is_aborted_before_upstream_has_all_of_it() {
    let world = Scripted::start(&[("GATEWAY_REQUEST_HOLD", "64KiB")]).await;
    let token = world.entra.token().build();
    let filler = "x".repeat(1024 * 1024);
    for (is_chunked, user, status) in
        [(false, OTHER_USER, "403"), (true, OTHER_USER, "403"), (true, USER_OID, "200")]
    {
        let body = multipart(user).replace(&"x".repeat(5000), &filler);
        let framing = if is_chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        };
        let head = format!(
            "POST /external/public_documents HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: {MULTIPART}\r\n{framing}\r\n\r\n"
        );
        let mut sent = head.into_bytes();
        if is_chunked {
            for chunk in body.as_bytes().chunks(7919) {
                sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");
        } else {
            sent.extend_from_slice(body.as_bytes());
        }
        let mut caller = world.caller().await;
        let sending = async {
            // The gateway may refuse before the body is sent completely.
            let _ = caller.try_send(&sent).await;
            caller.head().await
        };
        let upstream = async {
            let mut upstream = world.upstream().await;
            upstream.head().await;
            if user == USER_OID {
                let arrived = upstream.until("0\r\n\r\n").await;
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                arrived
            } else {
                upstream.rest().await
            }
        };
        let (answer, arrived) = tokio::join!(sending, upstream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(arrived.len() > 500_000, "the upload was in progress: {}", arrived.len());
        assert_eq!(arrived.contains("--B--"), user == USER_OID, "{is_chunked} {user}");
        assert_eq!(arrived.contains(user), user == USER_OID, "not even the id of the other user");
    }
}

/// Pieces where an unusual spelling could hide a field.
const MULTIPART_PIECES: &[&str] = &[
    "--B",
    "--B--",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ";",
    "\"",
    "\\",
    "'",
    "=",
    "--",
    "Content-Disposition: form-data; name=\"user_id\"",
    "Content-Disposition: form-data; name=\"a\"",
    "; name=\"user_id\"",
    "; filename=\"f\"",
    "; name*=utf-8''user_id",
    "; name*0=\"user_\"; name*1=\"id\"",
    "Content-Type: text/plain; charset=utf-8",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "%22",
    "\0",
    "\u{b}",
    USER_OID,
    OTHER_USER,
    "user_id",
    "x",
];
const FORM_PIECES: &[&str] = &[
    "user_id",
    "user%5Fid",
    "%75ser_id",
    "=",
    "&",
    ";",
    "+",
    "%20",
    "%00",
    "%3D",
    "%26",
    "\u{e4}",
    "%C3",
    USER_OID,
    OTHER_USER,
    "a",
    "\r\n",
    "user_id=",
];

/// A valid body with some of its pieces changed.
fn altered(dice: &mut Dice, good: &str, pieces: &[&str]) -> String {
    let mut body = good.to_owned();
    for _ in 0..=dice.below(4) {
        let places: Vec<usize> = body.char_indices().map(|(at, _)| at).collect();
        let at = places[dice.below(places.len())];
        let piece = pieces[dice.below(pieces.len())];
        match dice.below(3) {
            0 => body.insert_str(at, piece),
            1 => {
                let end = places.iter().copied().find(|end| *end >= at + piece.len());
                body.replace_range(at..end.unwrap_or(body.len()), piece);
            }
            _ => {
                let old = pieces[dice.below(pieces.len())];
                let all: Vec<usize> = body.match_indices(old).map(|(at, _)| at).collect();
                if !all.is_empty() {
                    let at = all[dice.below(all.len())];
                    body.replace_range(at..at + old.len(), piece);
                }
            }
        }
        if body.is_empty() {
            body.push_str(piece);
        }
    }
    body
}

/// Number of altered forms.
const FORMS: usize = 3000;

/// In an accepted body, Werkzeug finds no other user than the subject.
#[tokio::test]
async fn werkzeug_finds_no_other_user_in_an_accepted_form() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    let http = client();
    let url = world.gateway.url(USERS);
    let mut dice = Dice::new(0x5eed);
    let (mut let_in, mut named) = (0, 0);
    for round in 0..FORMS {
        let is_multipart = round % 3 > 0;
        let (good, pieces, content_type) = if is_multipart {
            let mut body = String::new();
            for part in 0..=dice.below(3) {
                let name = ["user_id", "a", "file\"; filename=\"f"][dice.below(3)];
                let user = [USER_OID, OTHER_USER, "x"][(round + part) % 3];
                let _ = write!(
                    body,
                    "--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{user}\r\n"
                );
            }
            (body + "--B--\r\n", MULTIPART_PIECES, MULTIPART)
        } else {
            (format!("a=1&user_id={USER_OID}&b={OTHER_USER}"), FORM_PIECES, FORM)
        };
        let body = altered(&mut dice, &good, pieces);
        let request = http.post(&url).bearer_auth(&token).header("content-type", content_type);
        let answer = request.body(body.clone()).send().await.unwrap();
        match answer.status().as_u16() {
            200 => {
                let_in += 1;
                let received: Value = json(answer).await;
                for user in received["body"].as_array().unwrap() {
                    named += 1;
                    assert_eq!(user, USER_OID, "{body:?}");
                }
            }
            400 | 403 => {}
            other => panic!("{other}: {body:?}"),
        }
    }
    println!("{FORMS} forms: {let_in} let in, {named} users found in them");
    assert!(
        let_in > FORMS / 20 && named > FORMS / 50,
        "{let_in} {named}: too few to show anything"
    );
}
