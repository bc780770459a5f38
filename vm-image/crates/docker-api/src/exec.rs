//! `/exec`: a process that is added to a running container.

use serde::{Deserialize, Serialize, Serializer};

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the one of the same name in the Engine API's ExecConfig")]
pub struct ExecOptions {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    /// Lines and columns.
    pub console_size: Option<[u32; 2]>,
    pub attach_stdin: bool,
    pub attach_stderr: bool,
    pub attach_stdout: bool,
    pub detach_keys: String,
    pub env: Option<Vec<String>>,
    pub working_dir: String,
    pub cmd: Option<Vec<String>>,
}

/// The answer to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecCreated {
    /// Names the process.
    pub id: String,
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the one of the same name in the Engine API's ExecStartConfig")]
pub struct ExecStartOptions {
    pub detach: bool,
    pub tty: bool,
    /// Lines and columns.
    pub console_size: Option<[u32; 2]>,
}

/// The answer of `GET /exec/{id}/json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(
    missing_docs,
    reason = "each field is the one of the same name in the Engine API's ExecInspectResponse"
)]
pub struct ExecInspect {
    #[serde(rename = "ID")]
    pub id: String,
    pub running: bool,
    /// `None` while it has not ended.
    pub exit_code: Option<i32>,
    pub process_config: ExecProcessConfig,
    pub open_stdin: bool,
    pub open_stderr: bool,
    pub open_stdout: bool,
    pub can_remove: bool,
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Written in base 64.
    #[serde(serialize_with = "base_64")]
    pub detach_keys: Vec<u8>,
    pub pid: u32,
}

/// What runs.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "each field is the one of the same name in the Engine API's ProcessConfig")]
pub struct ExecProcessConfig {
    pub tty: bool,
    pub entrypoint: String,
    pub arguments: Vec<String>,
    pub privileged: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

/// As Go writes bytes.
fn base_64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::go;

    #[test]
    fn a_wish_is_read_and_keys_are_written_as_in_go() {
        let wish: ExecOptions =
            go::decode(&json!({"Cmd": ["a", "b"], "ConsoleSize": [24, 80], "tty": true, "Env": null}))
                .unwrap();
        assert_eq!(wish.console_size, Some([24, 80]));
        assert!(wish.tty && wish.cmd == Some(vec!["a".into(), "b".into()]));
        let told = ExecInspect {
            id: "1".into(),
            running: false,
            exit_code: None,
            process_config: ExecProcessConfig {
                tty: false,
                entrypoint: "a".into(),
                arguments: Vec::new(),
                privileged: false,
                user: String::new(),
            },
            open_stdin: false,
            open_stderr: false,
            open_stdout: false,
            can_remove: false,
            container_id: "c".into(),
            detach_keys: vec![16, 17],
            pid: 0,
        };
        let text = serde_json::to_string(&told).unwrap();
        assert!(text.contains(r#""ExitCode":null"#) && text.contains(r#""DetachKeys":"EBE=""#), "{text}");
    }
}
