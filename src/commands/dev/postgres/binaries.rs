//! Finds the server's programs.

use std::path::{Path, PathBuf};

use super::PostgresError;
use crate::config::env_vars;

/// Directories in which packages put `<prefix><version>/bin`.
const PACKAGES: &[(&str, &str)] = &[("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
const HOMEBREW: &[(&str, &str)] = &[("/opt/homebrew/opt", "postgresql"), ("/usr/local/opt", "postgresql")];

/// The directory of `initdb`, `postgres` and `pg_ctl`: what `PG_BINDIR` says, else the newest that a package has
/// brought, else what PATH leads to, else Homebrew's newest.
pub(super) fn find() -> Result<PathBuf, PostgresError> {
    let mut vars = env_vars();
    if let Some(dir) = vars.remove("PG_BINDIR").filter(|dir| !dir.is_empty()) {
        let dir = std::path::absolute(&dir).unwrap_or_else(|_| dir.into());
        return if holds_programs(&dir) { Ok(dir) } else { Err(PostgresError::BadBinDir(dir)) };
    }
    let path = vars.remove("PATH").unwrap_or_default();
    newest(PACKAGES)
        .or_else(|| std::env::split_paths(&path).find_map(|dir| behind_link(&dir)))
        .or_else(|| newest(HOMEBREW))
        .ok_or(PostgresError::NotInstalled)
}

fn holds_programs(dir: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"].iter().all(|program| dir.join(program).is_file())
}

/// Some put links to a few of the programs on PATH; all of them are where the link points.
fn behind_link(dir: &Path) -> Option<PathBuf> {
    let initdb = dir.join("initdb").canonicalize().ok()?;
    initdb.parent().filter(|dir| holds_programs(dir)).map(Path::to_owned)
}

fn newest(places: &[(&str, &str)]) -> Option<PathBuf> {
    places
        .iter()
        .filter_map(|(dir, prefix)| Some((std::fs::read_dir(dir).ok()?, prefix)))
        .flat_map(|(entries, prefix)| {
            entries.filter_map(move |entry| {
                let entry = entry.ok()?;
                let version = version(entry.file_name().to_str()?.strip_prefix(prefix)?)?;
                Some((version, entry.path().join("bin")))
            })
        })
        .filter(|(_, bin)| holds_programs(bin))
        .max()
        .map(|(_, bin)| bin)
}

/// `15`, `9.6`, `@16`; nothing for a link without a version.
fn version(text: &str) -> Option<Vec<u32>> {
    let digits = text.trim_start_matches('@');
    if digits.is_empty() {
        return Some(Vec::new());
    }
    digits.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(version("15") > version("9.6"));
        assert!(version("@16") > version("@9"));
        assert!(version("") < version("@14"), "a link without a version");
        assert_eq!(version("15-old"), None);
    }

    #[test]
    fn a_directory_of_links_leads_to_where_they_point() {
        let dir = std::env::temp_dir().join(format!("tp-links-{}", uuid::Uuid::new_v4().simple()));
        let (real, links) = (dir.join("real"), dir.join("links"));
        for dir in [&real, &links] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for program in ["initdb", "postgres", "pg_ctl"] {
            std::fs::write(real.join(program), "").unwrap();
        }
        std::os::unix::fs::symlink(real.join("initdb"), links.join("initdb")).unwrap();
        let found = behind_link(&links);
        let expected = real.canonicalize().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, Some(expected));
    }
}
