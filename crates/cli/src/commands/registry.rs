//! `login`, `logout` and `search`.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{Verb, number, text};
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::credentials::{self, Login};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};
use crate::parse::filter;
use crate::terminal::raw::SilentMode;

/// Flags of `gamut login`.
#[derive(Debug, Args)]
pub struct LoginArguments {
    /// Password or personal access token
    #[arg(short, long, value_name = "TEXT")]
    pub password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// The registry, Docker Hub by default
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

impl Verb for LoginArguments {
    const USAGE: &'static str = "[OPTIONS] [SERVER]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let server = credentials::server_of(self.server.as_deref().unwrap_or_default());
        let known = credentials::get(&server)?;
        let login = match (&known, &self.username, &self.password, self.password_stdin) {
            // docker, too, tries what it has before it asks.
            (Some(known), None, None, false) => {
                print::line("Authenticating with existing credentials...")?;
                known.clone()
            }
            _ => self.asked(known.as_ref())?,
        };
        let answer = client
            .post("/auth", &Query::new(), &login.to_json(&server))
            .await?;
        let token = text(&answer, "IdentityToken");
        let kept = if token.is_empty() {
            login
        } else {
            Login {
                username: login.username,
                password: String::new(),
                identity_token: token.to_owned(),
            }
        };
        if let Some(path) = credentials::store(&server, &kept)? {
            print::note(&format!(
                "WARNING! Your credentials are stored unencrypted in {}.\nConfigure a credential \
                 helper (credsStore in that file) to keep them elsewhere.",
                path.display()
            ));
        }
        print::line(text(&answer, "Status"))?;
        Ok(0)
    }
}

impl LoginArguments {
    fn asked(&self, known: Option<&Login>) -> Result<Login, Error> {
        if self.password.is_some() && self.password_stdin {
            return Err(Error::Usage(
                "--password and --password-stdin are mutually exclusive".into(),
            ));
        }
        if self.password.is_some() {
            print::note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        if self.password_stdin {
            let username = self.username.clone().unwrap_or_default();
            if username.is_empty() {
                return Err(Error::Usage(
                    "Must provide --username with --password-stdin".into(),
                ));
            }
            let mut password = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut password)
                .map_err(Error::io("read the password"))?;
            return whole(username, password.trim_end_matches(['\r', '\n']).to_owned());
        }
        let has_all = self.username.is_some() && self.password.is_some();
        if !has_all && !std::io::stdin().is_terminal() {
            return Err(Error::Usage(
                "cannot ask for a name and password: standard input is no terminal. Use \
                 --username and --password-stdin"
                    .into(),
            ));
        }
        let username = match &self.username {
            Some(username) => username.clone(),
            None => {
                let default = known.map_or("", |known| known.username.as_str());
                let question = match default {
                    "" => "Username: ".to_owned(),
                    default => format!("Username ({default}): "),
                };
                let typed = ask(&question)?;
                if typed.is_empty() {
                    default.to_owned()
                } else {
                    typed
                }
            }
        };
        let password = match &self.password {
            Some(password) => password.clone(),
            None => {
                let silent = SilentMode::enter()?;
                let typed = ask("Password: ");
                drop(silent);
                print::line("")?;
                typed?
            }
        };
        whole(username, password)
    }
}

fn whole(username: String, password: String) -> Result<Login, Error> {
    if username.is_empty() {
        return Err(Error::Usage("username is empty".into()));
    }
    if password.is_empty() {
        return Err(Error::Usage("password is empty".into()));
    }
    Ok(Login {
        username,
        password,
        identity_token: String::new(),
    })
}

fn ask(question: &str) -> Result<String, Error> {
    print::out(question)?;
    std::io::stdout().flush().map_err(print::closed)?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(Error::io("read the answer"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Flags of `gamut logout`.
#[derive(Debug, Args)]
pub struct LogoutArguments {
    /// The registry, Docker Hub by default
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

impl Verb for LogoutArguments {
    const USAGE: &'static str = "[SERVER]";

    async fn run(self, _client: Arc<Client>) -> Result<u8, Error> {
        let server = credentials::server_of(self.server.as_deref().unwrap_or_default());
        if credentials::erase(&server)? {
            print::line(&format!("Removing login credentials for {server}"))?;
        } else {
            print::line(&format!("Not logged in to {server}"))?;
        }
        Ok(0)
    }
}

const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const DESCRIPTION_WIDTH: usize = 45;

/// Flags of `gamut search`.
#[derive(Debug, Args)]
pub struct SearchArguments {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u32>,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// What to search for
    #[arg(value_name = "TERM")]
    pub term: String,
}

impl Verb for SearchArguments {
    const USAGE: &'static str = "[OPTIONS] TERM";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let limit = self.limit.map(|limit| limit.to_string());
        let query = Query::new()
            .with("term", &self.term)
            .maybe("limit", limit.as_deref())
            .maybe("filters", filter::parse(&self.filter)?.as_deref());
        let registry = match self.term.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => "",
        };
        let server = credentials::server_of(registry);
        let mut call = Call::new(Method::GET, "/images/search", &query);
        if let Some(login) = credentials::get(&server)? {
            call = call.header(credentials::HEADER, &login.to_header(&server));
        }
        let found = client.call(call).await?;
        let mut found = found.as_array().cloned().unwrap_or_default();
        found.sort_by_key(|one| std::cmp::Reverse(number(one, "star_count")));
        let rows: Vec<Row> = found.iter().map(|one| self.row(one)).collect();
        let layout = Layout {
            table: TABLE,
            headers: HEADERS,
        };
        print::out(&render(self.format.as_deref(), &layout, &rows)?)?;
        Ok(0)
    }
}

impl SearchArguments {
    fn row(&self, one: &Value) -> Row {
        let description = text(one, "description").replace(['\n', '\r', '\t'], " ");
        let mark = |name: &str| match one.get(name).and_then(Value::as_bool) {
            Some(true) => "[OK]",
            _ => "",
        };
        Row::new()
            .with("Name", text(one, "name"))
            .with(
                "Description",
                if self.no_trunc {
                    description
                } else {
                    units::ellipsis(&description, DESCRIPTION_WIDTH)
                },
            )
            .with("StarCount", number(one, "star_count").to_string())
            .with("IsOfficial", mark("is_official"))
            .with("IsAutomated", mark("is_automated"))
    }
}
