//! Content of the page `/gateway/docs`, read from the `OpenAPI` document.

use askama::Template;
use serde_json::{Map, Value};

/// Template of the page.
#[derive(Template)]
#[template(path = "docs.html")]
pub(crate) struct Docs {
    style: &'static str,
    title: String,
    version: String,
    about: Prose,
    schemes: Vec<SchemeDoc>,
    chapters: Vec<TagGroup>,
    common: Vec<ResponseDoc>,
    headers: Vec<Member>,
    schemas: Vec<SchemaView>,
}

/// Text with code spans: `…` in the document.
type Prose = Vec<TextSpan>;

struct TextSpan {
    text: String,
    is_code: bool,
}

/// Security scheme.
struct SchemeDoc {
    id: String,
    name: String,
    carried: String,
    about: Prose,
}

/// Operations of one tag.
struct TagGroup {
    id: String,
    name: String,
    about: Prose,
    operations: Vec<Operation>,
}

/// Operations that differ only in path and method.
struct Operation {
    id: String,
    summary: String,
    about: Prose,
    places: Vec<PathItem>,
    /// Reason for access without credentials; `None`: credentials are required.
    public_because: Option<String>,
    /// Names of the accepted security schemes; one is sufficient.
    schemes: Vec<String>,
    parameters: Vec<Member>,
    /// Request bodies, one per media type.
    request_bodies: Vec<BodyDoc>,
    answers: Vec<ResponseDoc>,
    /// Statuses of the common responses.
    common: Vec<String>,
    /// Operation without its id; equal operations are shown once.
    comparable: Value,
}

/// Path and its methods.
struct PathItem {
    path: String,
    methods: Vec<String>,
}

struct ResponseDoc {
    status: String,
    about: Prose,
    bodies: Vec<BodyDoc>,
    headers: Vec<HeaderName>,
    /// True if SimpleChat may respond with this status too, with any body.
    may_be_from_upstream: bool,
}

struct BodyDoc {
    media_type: String,
    /// Name of the schema.
    schema: Option<String>,
}

struct HeaderName {
    name: String,
    is_optional: bool,
}

/// Schema: an object or a named value.
struct SchemaView {
    name: String,
    about: Prose,
    form: Prose,
    members: Vec<Member>,
}

/// Parameter, header or member of an object.
struct Member {
    name: String,
    note: &'static str,
    about: Prose,
    form: Prose,
    schema: Option<String>,
    example: Option<String>,
}

const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

impl Docs {
    /// Reads a document.
    pub(crate) fn read(document: &Value, style: &'static str) -> Self {
        let info = &document["info"];
        let components = &document["components"];
        let responses = pairs(&components["responses"]);
        let mut common: Vec<_> = responses
            .map(|(name, answer)| read_answer(&status_of(document, name), answer))
            .collect();
        common.sort_by(|a, b| a.status.cmp(&b.status));
        Self {
            style,
            title: text(&info["title"]),
            version: text(&info["version"]),
            about: prose(&info["description"]),
            schemes: pairs(&components["securitySchemes"]).map(read_scheme).collect(),
            chapters: read_chapters(document),
            common,
            headers: pairs(&components["headers"])
                .filter(|(name, _)| {
                    !name.ends_with(SOMETIMES) || is_always_optional(components, name)
                })
                .map(|(name, header)| {
                    let name = name.trim_end_matches(SOMETIMES);
                    read_member(name, header, &header["schema"], "")
                })
                .collect(),
            schemas: pairs(&components["schemas"]).map(read_shape).collect(),
        }
    }
}

const SOMETIMES: &str = ".sometimes";
const ANY: &str = "*/*";

/// True for a header that is optional wherever it is used.
fn is_always_optional(components: &Value, name: &str) -> bool {
    components["headers"].get(name.trim_end_matches(SOMETIMES)).is_none()
}

/// Status of a shared response.
fn status_of(document: &Value, name: &str) -> String {
    let reference = format!("#/components/responses/{name}");
    operations(document)
        .flat_map(|(_, _, operation)| pairs(&operation["responses"]))
        .find(|(_, answer)| answer["$ref"] == reference.as_str())
        .map(|(status, _)| status.clone())
        .unwrap_or_default()
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &'static str, &Value)> {
    pairs(&document["paths"]).flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| Some((path, *method, item.get(method)?)))
    })
}

fn read_chapters(document: &Value) -> Vec<TagGroup> {
    let tags = document["tags"].as_array().into_iter().flatten();
    tags.map(|tag| {
        let name = text(&tag["name"]);
        let mut found: Vec<Operation> = Vec::new();
        for (path, method, operation) in operations(document) {
            if operation["tags"][0] != name.as_str() {
                continue;
            }
            let mut comparable = operation.clone();
            comparable.as_object_mut().map(|all| all.remove("operationId"));
            match found.iter_mut().find(|known| known.comparable == comparable) {
                Some(known) => known.also_at(path, method),
                None => found.push(read_operation(path, method, operation, comparable)),
            }
        }
        let id = format!("chapter-{}", name.to_lowercase());
        TagGroup { id, name, about: prose(&tag["description"]), operations: found }
    })
    .collect()
}

impl Operation {
    fn also_at(&mut self, path: &str, method: &str) {
        let method = method.to_uppercase();
        match self.places.iter_mut().find(|place| place.path == path) {
            Some(place) => place.methods.push(method),
            None => self.places.push(PathItem { path: path.to_owned(), methods: vec![method] }),
        }
    }
}

fn read_operation(path: &str, method: &str, operation: &Value, comparable: Value) -> Operation {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let is_shared = |answer: &Value| answer.get("$ref").is_some();
    let answers = || pairs(&operation["responses"]);
    let because = &operation["x-public-because"];
    Operation {
        id: text(&operation["operationId"]),
        summary: text(&operation["summary"]),
        about: prose(&operation["description"]),
        places: vec![PathItem { path: path.to_owned(), methods: vec![method.to_uppercase()] }],
        public_because: because.as_str().map(str::to_owned),
        schemes: operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|either| pairs(either).map(|(name, _)| name.clone()))
            .collect(),
        parameters: parameters
            .map(|it| {
                let note = if it["required"] == true { "required" } else { "" };
                read_member(&text(&it["name"]), it, &it["schema"], note)
            })
            .collect(),
        request_bodies: read_bodies(&operation["requestBody"]).collect(),
        answers: answers()
            .filter(|(_, answer)| !is_shared(answer))
            .map(|(status, answer)| {
                read_answer(if status == "default" { "other" } else { status }, answer)
            })
            .collect(),
        common: answers()
            .filter(|(_, answer)| is_shared(answer))
            .map(|(status, _)| status.clone())
            .collect(),
        comparable,
    }
}

fn read_answer(status: &str, answer: &Value) -> ResponseDoc {
    ResponseDoc {
        status: status.to_owned(),
        about: prose(&answer["description"]),
        bodies: read_bodies(answer).collect(),
        headers: pairs(&answer["headers"])
            .map(|(name, header)| HeaderName {
                name: name.clone(),
                is_optional: header["$ref"].as_str().is_some_and(|it| it.ends_with(SOMETIMES)),
            })
            .collect(),
        may_be_from_upstream: answer["content"].get(ANY).is_some(),
    }
}

fn read_bodies(of: &Value) -> impl Iterator<Item = BodyDoc> {
    let all = pairs(&of["content"]).filter(|(media_type, _)| *media_type != ANY);
    all.map(|(media_type, content)| BodyDoc {
        media_type: media_type.clone(),
        schema: named(&content["schema"]),
    })
}

fn read_scheme((name, scheme): (&String, &Value)) -> SchemeDoc {
    let carried = match scheme["type"].as_str() {
        Some("apiKey") => format!("`{}`, a {}", text(&scheme["name"]), text(&scheme["in"])),
        _ => "`Authorization: Bearer TOKEN`".to_owned(),
    };
    SchemeDoc {
        id: format!("scheme-{name}"),
        name: name.clone(),
        carried: carried.replace('`', ""),
        about: prose(&scheme["description"]),
    }
}

fn read_shape((name, schema): (&String, &Value)) -> SchemaView {
    let required = |member: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == member))
    };
    SchemaView {
        name: name.clone(),
        about: prose(&schema["description"]),
        form: form(schema),
        members: pairs(&schema["properties"])
            .map(|(name, member)| {
                let note = if required(name) { "" } else { "optional" };
                read_member(name, member, member, note)
            })
            .collect(),
    }
}

fn read_member(name: &str, member: &Value, schema: &Value, note: &'static str) -> Member {
    let example = [&member["example"], &schema["example"]].into_iter().find(|it| !it.is_null());
    Member {
        name: name.to_owned(),
        note,
        about: prose(&member["description"]),
        form: form(schema),
        schema: named(schema).or_else(|| named(&schema["items"])),
        example: example.map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned)),
    }
}

/// Name of the schema in a reference.
fn named(schema: &Value) -> Option<String> {
    schema["$ref"].as_str()?.rsplit('/').next().map(str::to_owned)
}

/// Constraints of a value, as a text.
fn form(schema: &Value) -> Prose {
    let mut parts = Vec::new();
    match &schema["type"] {
        Value::String(one) => parts.push(one.clone()),
        Value::Array(any) => {
            parts.push(any.iter().map(text).collect::<Vec<_>>().join(" or "));
        }
        _ => {}
    }
    if let Some(format) = schema["format"].as_str() {
        parts.push(format.to_owned());
    }
    let number = |name: &str| schema.get(name).map(Value::to_string);
    for (min, max, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " items"),
    ] {
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min == max => {
                let unit = if min == "1" { unit.trim_end_matches('s') } else { unit };
                parts.push(format!("{min}{unit}"));
            }
            (Some(min), Some(max)) => parts.push(format!("{min} to {max}{unit}")),
            (None, Some(max)) => parts.push(format!("at most {max}{unit}")),
            (Some(min), None) => parts.push(format!("at least {min}{unit}")),
            (None, None) => {}
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", text(value))).collect();
        parts.push(format!("one of {}", values.join(", ")));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        parts.push(format!("`{pattern}`"));
    }
    if schema["additionalProperties"] == false {
        parts.push("no additional members".to_owned());
    }
    pieces(&parts.join(", "))
}

fn pairs(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn prose(value: &Value) -> Prose {
    pieces(value.as_str().unwrap_or_default())
}

fn pieces(text: &str) -> Prose {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(nth, part)| TextSpan { text: part.to_owned(), is_code: nth % 2 == 1 }).collect()
}
