//! Go's `text/template`, as far as a log's tag may use it: fields, pipelines, `if`, `with`, `range`, trimmed spaces, comments, and the
//! functions of dockerd's `templates` package with those of Go's that make sense for a line of text.
//!
//! Variables and templates within templates are refused by name. Errors are Go's, as dockerd passes them on.

mod functions;
mod parse;
mod print;
mod run;
mod value;

pub(super) use value::Value;

/// The text that a template makes of `data`. `name` stands in errors.
pub(super) fn expand(name: &str, template: &str, data: &Value) -> Result<String, String> {
    let within = |why: String| format!("template: {name}:{why}");
    let nodes = parse::parse(template).map_err(within)?;
    let mut text = String::new();
    let scope = run::Scope { name, root: data, dot: data, budget: &run::Budget::default() };
    run::run(&nodes, &scope, &mut text).map_err(within)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        let labels = [("com.example/service", "web"), ("plain", "x")];
        let labels = labels.map(|(key, value)| (key.to_owned(), Value::Text(value.into())));
        let words = ["sh", "-c", "true"].map(|word| Value::Text(word.into()));
        Value::Struct {
            kind: "*logger.Info",
            fields: [
                ("Name".to_owned(), Value::Text("web-1".into())),
                ("ID".to_owned(), Value::Text("0123456789ab".into())),
                ("Empty".to_owned(), Value::Text(String::new())),
                ("ContainerArgs".to_owned(), Value::List(words.into())),
                ("ContainerLabels".to_owned(), Value::Map(labels.into())),
            ]
            .into(),
        }
    }

    fn made(template: &str) -> Result<String, String> {
        expand("log-tag", template, &data())
    }

    /// What Go 1.24 makes of each.
    #[test]
    fn templates_make_what_go_makes_of_them() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Name}}/{{ .ID }}", "web-1/0123456789ab"),
            ("{{/* nothing */}}a", "a"),
            ("a  {{- .Name -}}  b", "aweb-1b"),
            ("{{upper .Name}}", "WEB-1"),
            ("{{.Name | upper | lower | title}}", "Web-1"),
            ("{{truncate .ID 4}} {{slice .ID 2 4}} {{slice .ID 10}}", "0123 23 ab"),
            ("{{pad .Name 1 2}}|{{pad .Empty 1 1}}", " web-1  |"),
            ("{{join .ContainerArgs \"+\"}} {{json .ContainerArgs}}", "sh+-c+true [\"sh\",\"-c\",\"true\"]"),
            ("{{index (split .Name \"-\") 1}}", "1"),
            ("{{index .ContainerLabels \"com.example/service\"}}", "web"),
            ("{{.ContainerLabels.plain}} {{.ContainerLabels.none}}", "x <no value>"),
            ("{{if .Empty}}yes{{else}}no{{end}}", "no"),
            ("{{if eq .Name \"a\" \"web-1\"}}one{{else if true}}two{{end}}", "one"),
            ("{{if eq .Name \"a\"}}one{{else if not false}}two{{else}}three{{end}}", "two"),
            ("{{with .Name}}<{{.}}>{{end}}{{with .Empty}}x{{else}}none{{end}}", "<web-1>none"),
            ("{{with .Name}}{{$.ID}}{{end}}", "0123456789ab"),
            ("{{range .ContainerArgs}}[{{.}}]{{end}}", "[sh][-c][true]"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{printf \"%-6s|%6s|%.3s|%q|%04d|%v%%\" .Name .Name .Name .Name 7 true}}",
                "web-1 | web-1|web|\"web-1\"|0007|true%",
            ),
            ("{{len .Name}} {{len .ContainerArgs}} {{print 1 2 \"a\"}}", "5 3 1 2a"),
            ("{{and .Name .ID}} {{or .Empty \"other\"}} {{lt 1 2}}", "0123456789ab other true"),
            ("{{.ContainerArgs}} {{.ContainerLabels}}", "[sh -c true] map[com.example/service:web plain:x]"),
            ("{{`raw \\`}} {{\"\\t\\\"\"}}", "raw \\ \t\""),
        ] {
            assert_eq!(made(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for template in [format!("{{{{{}", "(".repeat(10_000)), "{{if 1}}".repeat(10_000)] {
            assert!(made(&template).unwrap_err().contains("more than 100 actions or parentheses"));
        }
    }

    #[test]
    fn work_is_bounded() {
        let doubled = "{{with print . .}}".repeat(45) + "{{.}}" + &"{{end}}".repeat(45);
        for (template, at) in [
            ("{{range 9000000000000000000}}x{{end}}", "executing \"log-tag\" at <text>"),
            ("{{range 9000000000000000000}}{{end}}", "1:8: executing \"log-tag\" at <9000000000000000000>"),
            ("{{range 4000000}}{{range 4000000}}{{end}}{{end}}", "executing \"log-tag\" at <4000000>"),
            ("{{with .Name}}DOUBLED{{end}}", "at <print . .>"),
            ("{{json .ContainerArgs | json | json JSON}}", "at <json"),
        ] {
            let template = template.replace("DOUBLED", &doubled).replace(" JSON", &" | json".repeat(60));
            let refused = made(&template).unwrap_err();
            let why = "more than 4194304 bytes and steps are not supported in a tag";
            assert!(refused.contains(at) && refused.ends_with(why), "{refused}");
        }
        assert_eq!(made("{{range 1000}}x{{end}}").map(|made| made.len()), Ok(1000));
    }

    #[test]
    fn what_is_wrong_is_told_in_go_s_words() {
        for (template, message) in [
            ("{{.Name", "template: log-tag:1: unclosed action"),
            ("{{nope .Name}}", "template: log-tag:1: function \"nope\" not defined"),
            ("{{if .Name}}", "template: log-tag:1: unexpected EOF"),
            ("{{end}}", "template: log-tag:1: unexpected {{end}}"),
            ("{{}}", "template: log-tag:1: missing value for command"),
            ("{{if}}{{end}}", "template: log-tag:1: missing value for if"),
            ("{{(.Name}}", "template: log-tag:1: unclosed left paren"),
            ("{{\"a}}", "template: log-tag:1: unterminated quoted string"),
            (
                "a{{.Nope}}",
                "template: log-tag:1:3: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info",
            ),
            (
                "{{.Name.x}}",
                "template: log-tag:1:7: executing \"log-tag\" at <.Name.x>: can't evaluate field x in type string",
            ),
            (
                "{{slice .Name 9}}",
                "template: log-tag:1:2: executing \"log-tag\" at <slice .Name 9>: error calling slice: index out of range: 9",
            ),
            (
                "{{upper}}",
                "template: log-tag:1:2: executing \"log-tag\" at <upper>: wrong number of args for upper: want 1 got 0",
            ),
            ("{{$a := 1}}", "template: log-tag:1: variables are not supported in a tag"),
            ("{{template \"x\"}}", "template: log-tag:1: {{template}} is not supported in a tag"),
        ] {
            assert_eq!(made(template), Err(message.to_owned()), "{template}");
        }
    }
}
