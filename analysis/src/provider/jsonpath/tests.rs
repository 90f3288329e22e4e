use super::*;
use proptest::prelude::*;
use serde_json::json;

fn store() -> Value {
    json!({
        "name": "jsonpath",
        "book": [
            {"category": "reference", "author": "Nigel Rees", "title": "Sayings", "price": 8.95},
            {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword", "price": 12.99},
            {"category": "fiction", "author": "Herman Melville", "price": 8.99, "isbn": "0-553"},
        ],
        "labels": {"k8s.io/x": "dotted", "10": 10},
        "items": [{"n": 1, "ok": true}, {"n": 2, "ok": false}, {"n": 3}],
        "none": null, "empty": [],
    })
}

fn found(path: &str) -> Result<Value, String> {
    JsonPath::parse(path)?.find(&store()).map(|found| json!(found))
}

#[test]
fn paths_find_what_kubectl_finds() {
    for (path, expected) in [
        ("hello", json!([["hello"]])),
        ("{.name}", json!([["jsonpath"]])),
        ("{$.name}", json!([["jsonpath"]])),
        ("{@.name}", json!([["jsonpath"]])),
        ("{ .name }", json!([["jsonpath"]])),
        ("name: {.name}!", json!([["name: "], ["jsonpath"], ["!"]])),
        ("{.items[0].n}", json!([[1]])),
        ("{.items[-1].n}", json!([[3]])),
        ("{.items[*].n}", json!([[1, 2, 3]])),
        ("{.items[0:2].n}", json!([[1, 2]])),
        ("{.items[:2].n}", json!([[1, 2]])),
        ("{.items[1:].n}", json!([[2, 3]])),
        ("{.items[-2:].n}", json!([[2, 3]])),
        ("{.items[0:-1].n}", json!([[1, 2]])),
        ("{.items[::2].n}", json!([[1, 3]])),
        ("{.items[0,2].n}", json!([[1, 3]])),
        ("{.items[1:1].n}", json!([[]])),
        ("{['name']}", json!([["jsonpath"]])),
        ("{[\"name\"]}", json!([["jsonpath"]])),
        ("{['name', 'empty']}", json!([["jsonpath", []]])),
        ("{.labels['k8s\\.io/x']}", json!([["dotted"]])),
        ("{.labels['k8s.io/x']}", json!([["dotted"]])),
        ("{.labels.k8s\\.io/x}", json!([["dotted"]])),
        ("{.labels.*}", json!([[10, "dotted"]])),
        ("{..n}", json!([[1, 2, 3]])),
        ("{..isbn}", json!([["0-553"]])),
        ("{.book[?(@.price<10)].author}", json!([["Nigel Rees", "Herman Melville"]])),
        ("{.book[?(@.category==\"fiction\")].price}", json!([[12.99, 8.99]])),
        ("{.book[?(@.category!='fiction')].price}", json!([[8.95]])),
        ("{.book[?(@.isbn)].author}", json!([["Herman Melville"]])),
        ("{.items[?(@.n>=2)].n}", json!([[2, 3]])),
        ("{.items[?(@.n==2)].n}", json!([[2]])),
        ("{.items[?(@.n<=1)].n}", json!([[1]])),
        ("{.items[?(@.n>5)].n}", json!([[]])),
        ("{.items[0:2][?(@.ok==true)]}", json!([[]])),
        ("{range .items[*]}{.n}, {end}", json!([[1], [", "], [2], [", "], [3], [", "]])),
        ("{range .empty[*]}{.n}{end}done", json!([["done"]])),
        ("{range .book[?(@.isbn)]}{.title}{end}", json!("title is not found")),
        ("{.none}", json!([[null]])),
        ("{\"text\"}", json!([["text"]])),
        ("{'it\\'s'}", json!([["it's"]])),
        ("{3}", json!([[3]])),
        ("{true}", json!([[true]])),
        ("{.book[?(@.author==\"a)b\")].price}", json!([[]])),
    ] {
        let found = match found(path) {
            Ok(found) => found,
            Err(error) => Value::String(error),
        };
        // Lists that are elements of a list can not be filtered.
        let expected = match path {
            "{.items[0:2][?(@.ok==true)]}" => {
                json!("map[string]interface {} is not array or slice and cannot be filtered")
            }
            _ => expected,
        };
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (path, message) in [
        ("{.missing}", "missing is not found"),
        ("{.items[7]}", "array index out of bounds: index 7, length 3"),
        ("{.items[0:9]}", "array index out of bounds: index 8, length 3"),
        ("{.items[2:1]}", "starting index 2 is greater than ending index 1"),
        ("{.items[0:2:0]}", "step must be > 0"),
        ("{.name[0]}", "string is not array or slice"),
        ("{.items[x]}", "invalid array index x"),
        ("{.items[1:2:3:4]}", "invalid array index 1:2:3:4"),
        ("{.items[]}", "invalid array index "),
        ("{.name", "unclosed action"),
        ("{.items[0", "unterminated array"),
        ("{.items[?(@.n==1]}", "unterminated filter"),
        ("{.items[?(@.n==1)}", "unclosed array expect ]"),
        ("{.items[?(@.n=1)]}", "unrecognized filter operator ="),
        ("{.items[?(@.n==\"a\")]}", "incompatible types for comparison: float64 and string"),
        ("{....n}", "invalid multiple recursive descent"),
        ("{'open}", "unterminated quoted string"),
        ("{end}", "not in range, nothing to end"),
        ("{range .items[*]}", "{range} is not closed by {end}"),
        ("{foo}", "unrecognized identifier foo"),
        ("{!}", "unrecognized character in action: '!'"),
        ("{1.2.3}", "cannot parse number 1.2.3"),
    ] {
        assert_eq!(found(path), Err(message.to_owned()), "{path}");
    }
}

#[test]
fn a_path_that_finds_everything_ends() {
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!([deep, 1]);
    }
    let path = format!("{{{}}}", ".* .. ".repeat(40));
    assert!(JsonPath::parse(&path).unwrap().find(&deep).is_err());
    assert!(JsonPath::parse(&"{range .a}".repeat(100_000)).is_err());
    assert!(JsonPath::parse(&format!("{{.a{}", "[?(@.a".repeat(100_000))).is_err());
    assert!(JsonPath::parse(&format!("{{.a{}{}}}", "[?(@.a".repeat(50), ")]".repeat(50))).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_makes_it_panic(text in "[{}\\[\\].*$@?()'\"=<>!:,a-c0-9\\\\ é-]{0,24}") {
        if let Ok(path) = JsonPath::parse(&text) {
            let _ = path.find(&store());
        }
        if let Ok(path) = JsonPath::parse(&format!("{{.items{text}}}")) {
            let _ = path.find(&store());
        }
    }
}
