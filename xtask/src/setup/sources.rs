//! The Debian mirror this machine is configured with: read from apt's source lists in both their
//! formats.
//!
//! Formats: sources.list(5), "one-line-style" and "deb822-style".

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// One configured source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The mirror.
    pub uri: String,
    /// bookworm, bookworm-security, …
    pub suite: String,
    /// main, contrib, …
    pub components: Vec<String>,
    /// Signed-By as it stands there: a keyring's path, fingerprints, or a key of several lines.
    pub signed_by: Option<String>,
}

/// Where this machine takes Debian from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The release's name, such as bookworm.
    pub codename: String,
    /// The main archive.
    pub debian: Source,
    /// The security archive, if it is configured.
    pub security: Option<Source>,
}

/// Why no mirror is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorsError {
    /// /etc/os-release names another distribution.
    #[error("this machine runs {0}, not Debian")]
    NotDebian(String),
    /// No VERSION_CODENAME, as on unstable.
    #[error("/etc/os-release names no Debian release (VERSION_CODENAME)")]
    NoCodename,
    /// apt has no source for the release.
    #[error("/etc/apt/sources.list and sources.list.d name no mirror of Debian {0} with the component main")]
    NoSource(String),
}

impl Mirrors {
    /// What /etc says.
    pub fn of_this_machine() -> Result<Self, MirrorsError> {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = debian_codename(&os_release)?;
        Self::choose(&codename, &configured(Path::new("/etc/apt")))
    }

    fn choose(codename: &str, sources: &[Source]) -> Result<Self, MirrorsError> {
        let names = [codename, "stable", "oldstable", "testing"];
        let has_suite = |source: &&Source, suffix: &str| {
            names.iter().any(|name| source.suite.strip_prefix(name).is_some_and(|rest| rest == suffix))
                && source.components.iter().any(|component| component == "main")
        };
        let best = |suffix: &str| {
            sources
                .iter()
                .filter(|source| has_suite(source, suffix))
                .max_by_key(|source| likely_debian(source))
        };
        let debian = best("").ok_or_else(|| MirrorsError::NoSource(codename.to_owned()))?;
        let security = best("-security").or_else(|| best("/updates"));
        Ok(Self { codename: codename.to_owned(), debian: debian.clone(), security: security.cloned() })
    }

    /// A deb822 source list with these releases, for `architecture`: each release's main suite, its
    /// security suite where the machine has a security mirror, and the backports of the releases in
    /// `backports`.
    pub fn source_list(&self, releases: &[&str], backports: &[&str], architecture: &str) -> String {
        let mut suites = releases.join(" ");
        for release in backports {
            let _ = write!(suites, " {release}-backports");
        }
        let mut list = stanza(&self.debian, &suites, architecture);
        if let Some(security) = &self.security {
            let suites: Vec<_> = releases.iter().map(|release| format!("{release}-security")).collect();
            list.push('\n');
            list.push_str(&stanza(security, &suites.join(" "), architecture));
        }
        list
    }
}

fn stanza(source: &Source, suites: &str, architecture: &str) -> String {
    let signed_by = source.signed_by.as_ref().map_or_else(String::new, |key| format!("Signed-By: {key}\n"));
    let uri = &source.uri;
    format!(
        "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nArchitectures: \
         {architecture}\n{signed_by}"
    )
}

/// Ranks a source by how likely it is Debian's own: other vendors name their suites after Debian's
/// releases too.
fn likely_debian(source: &Source) -> impl Ord + use<> {
    let keyring = source.signed_by.as_ref().is_some_and(|key| key.contains("debian-archive"));
    let path = source.uri.trim_end_matches('/');
    let named = path.ends_with("/debian") || path.ends_with("/debian-security");
    let keyless = source.signed_by.is_none();
    (keyring, named, keyless)
}

fn debian_codename(os_release: &str) -> Result<String, MirrorsError> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    match value("ID") {
        Some(id) if id == "debian" => value("VERSION_CODENAME").ok_or(MirrorsError::NoCodename),
        other => Err(MirrorsError::NotDebian(
            value("PRETTY_NAME").or(other).unwrap_or_else(|| "no known system".into()),
        )),
    }
}

/// All sources below an apt configuration folder, in apt's order.
fn configured(apt: &Path) -> Vec<Source> {
    let mut sources = one_line(&fs::read_to_string(apt.join("sources.list")).unwrap_or_default());
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<_> = parts.map(|entry| entry.path()).collect();
    parts.sort();
    for part in parts {
        let Ok(text) = fs::read_to_string(&part) else { continue };
        match part.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line(&text)),
            Some("sources") => sources.extend(deb822(&text)),
            _ => {}
        }
    }
    sources
}

/// `deb [options] uri suite components…`
fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line_source).collect()
}

fn one_line_source(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        signed_by: signed_by.map(|key| key.replace(',', " ")),
    })
}

/// Stanzas of `Field: value`, continued on lines that begin with a space.
fn deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanzas = without_comments.split(|line| line.trim().is_empty());
    stanzas.flat_map(deb822_stanza).collect()
}

fn deb822_stanza(lines: &[&str]) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push('\n');
                value.push_str(line);
            }
            (false, _, Some((name, value))) => {
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            _ => {}
        }
    }
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words =
        |name| field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let disabled = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no") || value == "false");
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let (suites, components) = (words("suites"), words("components"));
    let source = |uri: String, suite: &String| Source {
        uri,
        suite: suite.clone(),
        components: components.clone(),
        signed_by: field("signed-by").map(str::to_owned),
    };
    words("uris")
        .into_iter()
        .flat_map(|uri| suites.iter().map(move |suite| (uri.clone(), suite)))
        .map(|(uri, suite)| source(uri, suite))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
Components: main
";

    #[test]
    fn deb822_stanzas_give_one_source_for_each_suite() {
        let sources = deb822(DEB822);
        let suites: Vec<_> = sources.iter().map(|source| source.suite.as_str()).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates", "bookworm-security"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/usr/share/keyrings/debian-archive-keyring.gpg"));
        let key = sources[2].signed_by.as_deref().unwrap();
        assert!(key.starts_with("\n -----BEGIN") && key.ends_with("BLOCK-----"), "{key}");
    }

    #[test]
    fn one_line_sources_are_read_with_and_without_options() {
        let sources = one_line(
            "# deb http://commented.example bookworm main\n\
             deb http://mirror.example/debian bookworm main non-free-firmware # trailing\n\
             deb-src http://mirror.example/debian bookworm main\n\
             deb\t[arch=amd64 signed-by=/a.gpg,/b.gpg]  https://sec.example/debian-security \
             bookworm-security main\n\
             nonsense\n\ndeb http://short.example\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].uri, "http://mirror.example/debian");
        assert_eq!(sources[0].components, ["main", "non-free-firmware"]);
        assert_eq!(sources[1].signed_by.as_deref(), Some("/a.gpg /b.gpg"));
    }

    #[test]
    fn debians_own_mirror_is_told_from_a_vendors() {
        let vendor =
            "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/linux bookworm main\n";
        let mut sources = one_line(vendor);
        sources.extend(deb822(DEB822));
        sources.extend(one_line(vendor));
        let mirrors = Mirrors::choose("bookworm", &sources).unwrap();
        assert_eq!(mirrors.debian.uri, "http://mirror.example/debian");
        assert_eq!(mirrors.security.unwrap().uri, "http://mirror.example/debian-security");
    }

    #[test]
    fn the_written_list_is_read_back_as_the_same_mirrors() {
        let mirrors = Mirrors::choose("bookworm", &deb822(DEB822)).unwrap();
        let list = mirrors.source_list(&["trixie", "bookworm"], &["bookworm"], "arm64");
        let sources = deb822(&list);
        let suites: Vec<_> = sources.iter().map(|source| source.suite.as_str()).collect();
        assert_eq!(
            suites,
            ["trixie", "bookworm", "bookworm-backports", "trixie-security", "bookworm-security"]
        );
        assert_eq!(sources[0].signed_by, mirrors.debian.signed_by);
        assert_eq!(
            sources[4].signed_by.as_ref().map(|key| key.trim()),
            mirrors.security.unwrap().signed_by.as_ref().map(|key| key.trim())
        );
        assert!(list.contains("Architectures: arm64"));
    }

    #[test]
    fn a_machine_that_names_its_release_stable_is_understood() {
        let sources = one_line("deb http://mirror.example/debian stable main\n");
        let mirrors = Mirrors::choose("trixie", &sources).unwrap();
        assert_eq!(mirrors.source_list(&["trixie"], &[], "amd64").lines().nth(2), Some("Suites: trixie"));
    }

    #[test]
    fn other_systems_are_named() {
        let ubuntu = "ID=ubuntu\nPRETTY_NAME=\"Ubuntu 24.04 LTS\"\nVERSION_CODENAME=noble\n";
        assert_eq!(debian_codename(ubuntu), Err(MirrorsError::NotDebian("Ubuntu 24.04 LTS".into())));
        assert_eq!(debian_codename(""), Err(MirrorsError::NotDebian("no known system".into())));
        assert_eq!(debian_codename("ID=debian\n"), Err(MirrorsError::NoCodename));
        assert_eq!(debian_codename("VERSION_CODENAME=bookworm\nID=debian\n"), Ok("bookworm".into()));
        assert_eq!(Mirrors::choose("sid", &[]), Err(MirrorsError::NoSource("sid".into())));
    }
}
