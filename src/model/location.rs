//! Where files or a lake stand: a local path or an S3-compatible bucket.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place for files. Globs keep their wildcards; nothing is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A path in the local file system, absolute.
    Local(PathBuf),
    /// A bucket and a key or key prefix without a leading slash.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// The key, key prefix or glob of keys; may be empty.
        key: String,
    },
}

/// A text that names no place lakegate can use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidLocation {
    /// Nothing was written.
    #[error("the location is empty; write a folder or s3://bucket/prefix")]
    Empty,
    /// An unknown scheme such as `ftp://`.
    #[error("`{0}` has a scheme that is not known; write a path or s3://bucket/prefix")]
    UnknownScheme(String),
    /// `s3://` without a bucket.
    #[error("`{0}` names no bucket; write s3://bucket/prefix")]
    NoBucket(String),
}

impl Location {
    /// Reads a path or an `s3://` address; relative paths are below `folder`.
    ///
    /// # Errors
    /// When the text is empty, has another scheme, or names no bucket.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, InvalidLocation> {
        if text.is_empty() {
            return Err(InvalidLocation::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Local(folder.join(text)));
        };
        match scheme {
            "s3" | "s3a" => match rest.split_once('/').unwrap_or((rest, "")) {
                ("", _) => Err(InvalidLocation::NoBucket(text.to_owned())),
                (bucket, key) => Ok(Self::S3 { bucket: bucket.to_owned(), key: key.trim_matches('/').to_owned() }),
            },
            "file" => Ok(Self::Local(PathBuf::from(rest))),
            _ => Err(InvalidLocation::UnknownScheme(text.to_owned())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_folder_and_buckets_are_not() {
        let folder = Path::new("/srv/team");
        assert_eq!(Location::parse("lake", folder), Ok(Location::Local("/srv/team/lake".into())));
        assert_eq!(Location::parse("/data/x", folder), Ok(Location::Local("/data/x".into())));
        let bucket = Location::S3 { bucket: "b".into(), key: "p/*.csv".into() };
        assert_eq!(Location::parse("s3://b/p/*.csv", folder), Ok(bucket));
        assert!(Location::parse("s3:///x", folder).is_err());
        assert!(Location::parse("ftp://h/x", folder).is_err());
    }
}
