//! Git's smart HTTP protocol: a bridge from HTTP to the CGI program `git http-backend`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use tokio::io::AsyncWriteExt;

/// What the server serves, and to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the bare repositories.
    pub root: PathBuf,
    /// Repositories under `private/` are shown to this user with this password only.
    pub user: String,
    pub password: String,
}

/// Serves until the process ends. A file `unavailable` in the root makes every request fail with 503.
pub async fn serve(address: SocketAddr, settings: Settings) -> Result<()> {
    let app = Router::new().fallback(handle).layer(DefaultBodyLimit::max(256 << 20)).with_state(Arc::new(settings));
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    axum::serve(listener, app).await.context("serve Git")
}

async fn handle(State(settings): State<Arc<Settings>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if settings.root.join("unavailable").exists() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the Git server is out of order, as a test asked for\n")
            .into_response();
    }
    if path.starts_with("/private/") && !authorized(&settings, &parts.headers) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "wrong user or password\n").into_response();
    }
    if path.split('/').any(|part| part == "..") {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let body = match axum::body::to_bytes(body, 256 << 20).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response(),
    };
    let query = parts.uri.query().unwrap_or_default();
    match backend(&settings.root, parts.method.as_str(), &path, query, &parts.headers, body).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

fn authorized(settings: &Settings, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let expected = format!("{}:{}", settings.user, settings.password);
    given == Some(base64::engine::general_purpose::STANDARD.encode(expected).as_str())
}

async fn backend(
    root: &Path,
    method: &str,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", text("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("GIT_PROTOCOL", text("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        // Pushing over HTTP asks for a name, which it writes into the reflog.
        .env("REMOTE_USER", "git");
    let mut child = command.spawn().context("run `git http-backend`")?;
    let mut input = child.stdin.take().context("the standard input of `git http-backend`")?;
    // It may stop reading early; what it then says is the answer.
    let writer = tokio::spawn(async move {
        input.write_all(&body).await.ok();
        input.shutdown().await.ok();
    });
    let done = child.wait_with_output().await?;
    writer.abort();
    parse_cgi(&done.stdout).with_context(|| format!("`git http-backend` ended with {}", done.status))
}

/// A CGI answer: header lines, an empty line, the body; the status is a header.
fn parse_cgi(answer: &[u8]) -> Result<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the headers")?;
    let mut response = Response::builder().status(StatusCode::OK);
    for line in String::from_utf8_lossy(&answer[..end]).lines() {
        let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            response = response.status(code.parse::<u16>().with_context(|| format!("status {value:?}"))?);
        } else {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(answer[end + 4..].to_vec()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cgi_answers_are_understood() {
        let response = parse_cgi(b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(axum::body::to_bytes(response.into_body(), 99).await.unwrap(), "no\r\n\r\n");
        assert!(parse_cgi(b"nonsense").is_err());
    }
}
