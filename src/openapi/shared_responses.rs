//! Parts of the document that all operations share: refusals before routing, the headers of each response, objects
//! without additional members.
//!
//! Annotations name a header; its description is here. A `?` after the name marks an optional header.

use utoipa::openapi::{
    Components, Content, Header, Object, OpenApi as Document, PathItem, Ref, RefOr, Response,
    Schema, Type,
    extensions::Extensions,
    header::HeaderBuilder,
    path::Operation,
    response::ResponseBuilder,
    schema::{AdditionalProperties, ObjectBuilder},
};

use crate::http::endpoint;

const PROBLEM: &str = "application/problem+json";
const SOMETIMES: &str = ".sometimes";

/// Name, description, pattern and maximum length of each response header.
const HEADERS: [(&str, &str, &str, usize); 15] = [
    (
        "Access-Control-Allow-Headers",
        "Request headers allowed for pages",
        "^[a-z-]+(, [a-z-]+)*$",
        128,
    ),
    ("Access-Control-Allow-Methods", "Methods allowed for pages", "^[A-Z]+(, [A-Z]+)*$", 64),
    (
        "Access-Control-Allow-Origin",
        "Origin whose pages may read the response: any, or the origin of the request if it is listed",
        r"^(\*|https?://[^/ ]+)$",
        256,
    ),
    (
        "Access-Control-Expose-Headers",
        "Response headers readable by pages",
        "^WWW-Authenticate$",
        16,
    ),
    ("Access-Control-Max-Age", "Lifetime of the preflight result in seconds", "^[0-9]+$", 5),
    ("Allow", "Supported methods", "^[A-Z]+(, ?[A-Z]+)*$", 64),
    (
        "Cache-Control",
        "`no-store`: not to be stored; `no-cache`: to be revalidated before each use",
        "^no-(cache|store)$",
        8,
    ),
    (
        "Content-Security-Policy",
        "Policy that loads no resources and runs no script",
        "^default-src 'none'; ",
        512,
    ),
    ("ETag", "Entity tag of the content", "^\"[A-Za-z0-9_-]{16}\"$", 18),
    ("Referrer-Policy", "Policy that sends no `Referer`", "^no-referrer$", 11),
    ("Retry-After", "Time to the next attempt in seconds", "^[1-9][0-9]*$", 10),
    (
        "Set-Cookie",
        "`session=ID; HttpOnly; Path=/; SameSite=Lax; Expires=…[; Secure]`",
        "^[^=;, ]+=[^;, ]+;",
        4096,
    ),
    ("Vary", "Request headers that select the response", "^[A-Za-z-]+(, ?[A-Za-z-]+)*$", 256),
    (
        "WWW-Authenticate",
        "`Bearer`, while external access is enabled with `resource_metadata` and `scope`, and with `error` if a token was sent; for administrators `Cookie`: they sign in to SimpleChat with a browser",
        "^(Bearer|Cookie)( [a-z_-]+=\"[^\"]*\"(, [a-z_-]+=\"[^\"]*\")*)?$",
        4096,
    ),
    ("X-Content-Type-Options", "Disables media type detection", "^nosniff$", 7),
];

/// Refusals before routing: status, name of the component, description.
const REFUSALS: [(&str, &str, &str); 7] = [
    (
        "400",
        "Malformed",
        "Request that two parsers could read differently, or malformed host or forwarding headers",
    ),
    (
        "403",
        "NotThroughFrontDoor",
        "Request not sent through the Azure Front Door that GATEWAY_FRONT_DOOR_ID names",
    ),
    ("405", "OtherMethod", "Method not allowed"),
    ("408", "TooSlow", "Request not received in time"),
    ("414", "TargetTooLong", "Request target too long"),
    ("431", "HeadTooLong", "Request head too long, or too many header fields"),
    ("503", "NoRoom", "Connection limit reached"),
];

/// Adds the shared parts to a document that contains all routes.
pub(crate) fn complete(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            describe(path, operation);
        }
    }
    let components = document.components.get_or_insert_default();
    close(components);
    for (_, name, description) in REFUSALS {
        components.responses.insert(name.to_owned(), refusal(name, description).into());
    }
    for (name, description, pattern, max_length) in HEADERS {
        let header = header(description, pattern, max_length);
        let sometimes = Extensions::from_iter([("x-sometimes", true)]);
        let may_be = HeaderBuilder::from(header.clone()).extensions(Some(sometimes)).build();
        components.headers.insert(name.to_owned(), header.into());
        components.headers.insert(format!("{name}{SOMETIMES}"), may_be.into());
    }
    for server in document.servers.iter_mut().flatten() {
        server.extensions = Some(Extensions::from_iter([("x-internal", false)]));
    }
    drop_unused_headers(document);
}

/// Operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, head, post, put, patch, delete, options, .. } = item;
    [get, head, post, put, patch, delete, options].into_iter().flatten()
}

fn describe(path: &str, operation: &mut Operation) {
    // `()` in an annotation means public, which the document expresses as an empty list.
    let is_open = |security: &Vec<_>| {
        serde_json::to_value(security).is_ok_and(|value| value == serde_json::json!([{}]))
    };
    if operation.security.as_ref().is_some_and(is_open) {
        operation.security = Some(Vec::new());
    }
    let is_administration = operation.tags.iter().flatten().any(|tag| tag == "Administration");
    let takes_tokens = !is_administration
        && operation.security.as_ref().is_some_and(|security| !security.is_empty());
    let is_proxied = operation.tags.iter().flatten().any(|tag| tag == "External");
    let is_health = path.starts_with("/gateway/health/");
    let answers = &mut operation.responses.responses;
    for (status, answer) in answers.iter_mut() {
        if let RefOr::T(answer) = answer {
            describe_answer(status, answer, takes_tokens);
            if is_administration && status == "401" {
                answer.headers.remove("Access-Control-Expose-Headers");
            }
            if is_proxied && answer.content.contains_key(PROBLEM) {
                // SimpleChat may respond with the same status and a body of its own.
                answer.content.insert("*/*".to_owned(), Content::new::<RefOr<Schema>>(None).into());
            }
        }
    }
    for (status, name, _) in REFUSALS {
        let does_not_apply = match status {
            "403" => is_health || endpoint::HEALTHCHECKS.contains(&path),
            "405" => is_proxied,
            "503" => is_health,
            _ => false,
        };
        if !does_not_apply && !answers.contains_key(status) {
            let shared = Ref::new(format!("#/components/responses/{name}"));
            answers.insert(status.to_owned(), RefOr::Ref(shared));
        }
    }
}

/// Replaces header names with references and adds the headers of a refusal with this status.
fn describe_answer(status: &str, answer: &mut Response, takes_tokens: bool) {
    let mut names: Vec<String> = answer.headers.keys().cloned().collect();
    if answer.content.contains_key(PROBLEM) {
        let more: &[&str] = match status {
            "400" if takes_tokens => &["WWW-Authenticate?"],
            "401" => &["WWW-Authenticate", "Access-Control-Expose-Headers"],
            "405" => &["Allow"],
            "429" | "503" => &["Retry-After"],
            _ => &[],
        };
        names.push("Cache-Control".to_owned());
        names.extend(more.iter().map(|name| (*name).to_owned()));
    }
    answer.headers = names
        .into_iter()
        .map(|name| {
            let plain = name.trim_end_matches('?');
            let suffix = if plain == name { "" } else { SOMETIMES };
            let known = Ref::new(format!("#/components/headers/{plain}{suffix}"));
            (plain.to_owned(), RefOr::Ref(known))
        })
        .collect();
}

fn refusal(name: &str, description: &str) -> Response {
    let status = REFUSALS.iter().find(|one| one.1 == name).map_or("", |one| one.0);
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut answer =
        ResponseBuilder::new().description(description).content(PROBLEM, problem).build();
    describe_answer(status, &mut answer, false);
    answer
}

fn header(description: &str, pattern: &str, max_length: usize) -> Header {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .max_length(Some(max_length))
        .build();
    HeaderBuilder::new().description(Some(description)).schema(Some(Schema::from(schema))).build()
}

/// Forbids additional members of objects, unless the schema allows them.
fn close(components: &mut Components) {
    for schema in components.schemas.values_mut() {
        if let RefOr::T(Schema::Object(Object { properties, additional_properties, .. })) = schema
            && !properties.is_empty()
        {
            additional_properties
                .get_or_insert_with(|| Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

fn drop_unused_headers(document: &mut Document) {
    let text = serde_json::to_string(document).unwrap_or_default();
    if let Some(components) = &mut document.components {
        components
            .headers
            .retain(|name, _| text.contains(&format!("\"#/components/headers/{name}\"")));
    }
}

/// Copies the operation of `GET` to every other method; the method is appended to the operation's id.
pub(crate) fn copy_get_to_all_methods(item: &mut PathItem) {
    let Some(model) = item.get.clone() else { return };
    let PathItem { head, post, put, patch, delete, options, .. } = item;
    for (place, method) in [
        (head, "Head"),
        (post, "Post"),
        (put, "Put"),
        (patch, "Patch"),
        (delete, "Delete"),
        (options, "Options"),
    ] {
        let mut operation = model.clone();
        operation.operation_id = operation.operation_id.map(|id| id + method);
        *place = Some(operation);
    }
}
