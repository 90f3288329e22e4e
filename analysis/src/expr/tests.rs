use super::*;
use proptest::prelude::*;

fn now() -> Timestamp {
    "2024-02-03T04:05:06Z".parse().unwrap()
}

fn run(text: &str, result: Value) -> Result<Value, Error> {
    Program::parse(text)?.run(&Scope::condition(result), now())
}

fn message(text: &str) -> String {
    run(text, Value::Nil).unwrap_err().to_string()
}

/// What `expr-lang/expr` 1.17.8 gives: result as JSON (with an `f` behind it, a list of floats), expression, type or
/// `error`, and the outcome as text. The order of maps aside, there is no difference in any row.
#[test]
fn does_what_the_peer_does() {
    let table = include_str!("peer.tsv");
    assert!(table.lines().count() > 400);
    for line in table.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [result, text, kind, outcome] = columns[..] else { panic!("{line}") };
        let json: serde_json::Value = serde_json::from_str(result.trim_end_matches('f')).unwrap_or_default();
        let result = if result.ends_with("]f") {
            Value::floats(json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
        } else {
            Value::from_json(&serde_json::from_str(result).unwrap()).unwrap()
        };
        match run(text, result) {
            Ok(value) => {
                assert_eq!(
                    (value.type_name(), format::text(&value).replace('\n', "\\n").as_str()),
                    (kind, outcome),
                    "{text}"
                );
            }
            Err(error) => assert_eq!(("error", error.to_string().as_str()), (kind, outcome), "{text}"),
        }
    }
}

#[test]
fn examples_of_the_documentation_hold() {
    for text in [
        r#"user.Name == user["Name"]"#,
        "array[0] == 1 && array[-1] == 5",
        r#""John" in ["John", "Jane"]"#,
        r#""name" in {"name": "John", "age": 30}"#,
        r#"author.User?.Name == nil"#,
        r#"(author.User?.Name ?? "Anonymous") == "Anonymous""#,
        "array[1:4] == [2, 3, 4] && array[1:-1] == [2, 3, 4] && array[:3] == [1, 2, 3] && array[3:] == [4, 5]",
        r#"(user.Name | lower() | split(" ")) == ["ann", "lee"]"#,
        r#"let name = user.Name | lower() | split(" "); "Hello, " + name[0] + "!" == "Hello, ann!""#,
        r#"len(filter(0..9, {# % 2 == 0})) == 5"#,
        r#"filter(posts, {let post = #; any(.Comments, .Author == post.Author)})[0].Author == "a""#,
        r#"split("apple,orange,grape", ",", 2) == ["apple", "orange,grape"]"#,
        r#"now().Year() == 2024 && now().YearDay() == 34"#,
        r#"duration("1h").Seconds() == 3600"#,
        r#"date("2023-08-14 00:00:00").In(timezone("Europe/Zurich")).Hour() == 2"#,
        r#"groupBy(users, .Age)[30.0] | len() == 2"#,
        r#"sum(accounts, .Balance) == reduce(accounts, #acc + .Balance, 0)"#,
        r#"fromPairs([["name", "John"], ["age", 30]])["age"] == 30"#,
        r#"bitushr(-0b101, 2) == 4611686018427387902"#,
        r#"type(now()) == "time.Time""#,
        r#"if len(users) > 1 { true } else { false }"#,
    ] {
        let data = serde_json::json!({
            "user": {"Name": "Ann Lee"},
            "author": {"User": null},
            "posts": [{"Author": "a", "Comments": [{"Author": "a"}]}, {"Author": "b", "Comments": []}],
            "users": [{"Age": 30}, {"Age": 30}, {"Age": 4}],
            "accounts": [{"Balance": 1.5}, {"Balance": 2}],
        });
        let text = ["user", "author", "posts", "users", "accounts"]
            .iter()
            .fold(format!("let array = 1..5; {text}"), |text, name| format!("let {name} = result.{name}; {text}"));
        let value = run(&text, Value::from_json(&data).unwrap());
        assert_eq!(value, Ok(Value::Bool(true)), "{text}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, expected) in [
        ("result >", "unexpected token EOF (1:8)"),
        ("result == 1\n  && (true", "unexpected token EOF (2:10)"),
        ("1 ?? 2 + 3", "operator + and ?? cannot be mixed; put one of them in parentheses (1:8)"),
        ("len(1, 2)", "too many arguments to call len (expected 1, got 2) (1:1)"),
        ("max()", "not enough arguments to call max (expected at least 1, got 0) (1:1)"),
        ("all([1])", "not enough arguments to call all: expected a predicate (1:8)"),
        ("results > 1", "unknown name results (1:1)"),
        ("result.items[0]", "cannot fetch items from nil (1:8)"),
        ("\"a\" matches \"(\"", "\"(\" is not a regular expression: unclosed group (1:13)"),
        ("asInt(\"x\")", "asInt: \"x\" is not a whole number (1:1)"),
        ("nil > 1", "invalid operation: > (mismatched types nil and int) (1:5)"),
        ("map([1], #.)", "expected name, found Bracket(\")\") (1:12)"),
        ("{1 + 1: 2}", "unexpected token Operator(\"+\") (1:4)"),
        ("fromJSON(\"nope\")", "fromJSON: expected ident at line 1 column 2 (1:1)"),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn a_scope_has_its_names_only() {
    let bare = |text: &str| Program::parse(text).and_then(|p| p.run(&Scope::bare(), now()));
    assert_eq!(bare("now() - duration(\"5m\")").map(|v| format::text(&v)), Ok("2024-02-03 04:00:06 +0000 UTC".into()));
    assert_eq!(bare("result").unwrap_err().message, "unknown name result");
    assert_eq!(bare("isNaN(1)").unwrap_err().message, "unknown name isNaN");
    assert_eq!(run("'result' in $env and 'isNaN' in $env and 'x' not in $env", Value::Nil), Ok(Value::Bool(true)));
    assert_eq!(Program::parse("result.a[0] > 1").unwrap().check(&Scope::unmeasured()), Ok(Type::Bool));
}

#[test]
fn expressions_made_for_harm_end() {
    for text in [
        "1..999999999999",
        "repeat(\"a\", 100000000)",
        "reduce(1..1000, #acc + #acc, \"aa\")",
        "reduce(1..100000, [#acc], 0)",
        "reduce(1..1000, [#acc, #acc], 0)",
        "reduce(1..1000, concat(#acc, #acc), [1])",
        "map(1..1000, map(1..1000, map(1..1000, 1)))",
        "all(1..900000, all(1..900000, true))",
        "uniq(1..900000)",
        "\"a\" matches \"(((a{1,100}){1,100}){1,100})\"",
        "map(1..100000, \"a\" matches string(#))",
        "toJSON(map(1..900000, \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"))",
        "replace(repeat(\"a\", 100000), \"\", repeat(\"b\", 1000))",
        "join(map(1..1000, repeat(\"a\", 100000)))",
    ] {
        assert!(run(text, Value::Nil).is_err(), "{text}");
    }
    let open = |text: &str, count: usize| Program::parse(&text.repeat(count));
    for text in
        ["(", "[", "{a:", "!", "-", "not ", "1+(", "all([1],", "result.a?.", "let a = ", "if true {", "f(", "true ? "]
    {
        assert!(open(text, 100_000).is_err(), "{text}");
    }
    assert!(open("1 + ", 100_000).is_err());
    assert!(Program::parse(&format!("{}1", "1 + ".repeat(100))).unwrap().run(&Scope::bare(), now()).is_ok());
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    assert!(run(&deep, Value::Nil).is_ok());
}

fn token() -> impl Strategy<Value = String> {
    let words = [
        "result",
        "1",
        "2.5",
        "0x1F",
        "\"a\"",
        "'b'",
        "`c`",
        "nil",
        "true",
        "#",
        "#acc",
        "#index",
        ".a",
        "?.a",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        ";",
        "let x =",
        "x",
        "if",
        "else",
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "^",
        "==",
        "!=",
        "<",
        ">",
        "<=",
        ">=",
        "and",
        "or",
        "not",
        "!",
        "in",
        "matches",
        "contains",
        "startsWith",
        "endsWith",
        "??",
        "?",
        "..",
        "|",
        "all(",
        "map(",
        "filter(",
        "reduce(",
        "sortBy(",
        "groupBy(",
        "sum(",
        "len(",
        "first(",
        "sort(",
        "split(",
        "string(",
        "toJSON(",
        "date(",
        "duration(",
        "now()",
        "median(",
        "fromPairs(",
        "toPairs(",
        "get(",
        "take(",
        "flatten(",
        "\\",
        "é",
        "\n",
        "/*",
        "//",
        "b\"\\xff\"",
        "$env",
        "::",
        "[0]",
        "[1:]",
        "[:-1]",
        ".Format(",
    ];
    prop_oneof![8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,3}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}") {
        if let Ok(program) = Program::parse(&text) {
            let _ = program.run(&Scope::condition(Value::floats([0.5])), now());
        }
    }

    #[test]
    fn no_tokens_make_it_panic(tokens in proptest::collection::vec(token(), 0..14)) {
        let text = tokens.join(" ");
        let data = Value::from_json(&serde_json::json!({"a": [1, "x", null, {"a": 2}], "b": {"c": 1.5}})).unwrap();
        if let Ok(program) = Program::parse(&text) {
            let scope = Scope::condition(data);
            let checked = program.check(&scope);
            let value = program.run(&scope, now());
            // What the check refuses does not run, and a type that it promises comes out.
            match (checked, value) {
                (Err(_), Ok(_)) => prop_assert!(false, "{text} was refused and ran"),
                (Ok(Type::Bool), Ok(value)) => prop_assert!(matches!(value, Value::Bool(_)), "{text}: {value:?}"),
                (Ok(Type::Text), Ok(value)) => prop_assert!(matches!(value, Value::Str(_)), "{text}: {value:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn arithmetic_is_that_of_floats(a in -1e6f64..1e6, b in -1e6f64..1e6) {
        let pair = Value::floats([a, b]);
        prop_assert_eq!(run("result[0] + result[1]", pair.clone()), Ok(Value::Float(a + b)));
        prop_assert_eq!(run("result[0] / result[1]", pair.clone()), Ok(Value::Float(a / b)));
        prop_assert_eq!(run("result[0] < result[1]", pair.clone()), Ok(Value::Bool(a < b)));
        prop_assert_eq!(run("max(result) - min(result) >= 0", pair), Ok(Value::Bool(true)));
    }

    #[test]
    fn sorting_keeps_the_elements(items in proptest::collection::vec(-100i64..100, 0..30)) {
        let list = Value::list(items.iter().copied().map(Value::Int).collect()).unwrap();
        let mut sorted = items;
        sorted.sort_unstable();
        let sorted = Value::list(sorted.into_iter().map(Value::Int).collect()).unwrap();
        prop_assert_eq!(run("sort(result)", list.clone()), Ok(sorted.clone()));
        prop_assert_eq!(run("reverse(sort(result, 'desc'))", list), Ok(sorted));
    }
}
