//! Directories and files for this account alone: 0700 and 0600, as far as the system has such modes.

use std::io;
use std::path::Path;

/// Makes a directory, with those above it that are missing. A directory that is there keeps its mode.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Takes from all other accounts the rights to a file or a directory.
#[cfg_attr(not(unix), allow(unused_variables))]
pub(super) fn close(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
