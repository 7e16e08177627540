"""Paths of benchmark files: as providers' adapters make them, depth 1 to 6, half of them in 20 wide directories."""

WIDE_DIRECTORIES = 20


def tree_path(index: int) -> str:
    """The path of file `index`; distinct for distinct numbers."""
    if index % 2 == 0:
        wide = index // 2 % WIDE_DIRECTORIES
        return f"/github/repos/acme/wide-{wide:02d}/issues/{index:07d}.json"
    deep = index // 2
    match deep % 6:
        case 0:
            return f"/note-{index:07d}.json"
        case 1:
            return f"/linear/issue-{index:07d}.json"
        case 2:
            return f"/linear/team-{deep % 97:02d}/issue-{index:07d}.json"
        case 3:
            return f"/slack/channels/c{deep % 211:03d}/{index:07d}.json"
        case 4:
            return f"/slack/channels/c{deep % 211:03d}/messages/{index:07d}.json"
        case _:
            return f"/github/repos/org-{deep % 13:02d}/repo-{deep % 307:03d}/pulls/{index:07d}.json"


DIRECTORY_FILES = 400


def many_path(index: int) -> str:
    """File `index` of directories that hold `DIRECTORY_FILES` each."""
    return f"/slack/channels/c{index // DIRECTORY_FILES:04d}/{index:07d}.json"


def flat_path(index: int) -> str:
    """File `index` of one directory."""
    return f"/github/repos/acme/flat/issues/{index:07d}.json"


SHAPES = {"tree": tree_path, "many": many_path, "flat": flat_path}
