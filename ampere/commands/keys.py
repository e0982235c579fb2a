"""API keys of the endpoint."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import tyro

from ampere.commands.base import Command


@dataclass(kw_only=True)
class Keys(Command):
    """Add, list or remove the API keys of the endpoint.

    A key is shown once, when it is added; the workspace keeps its hash. A running endpoint follows
    within seconds.
    """

    action: tyro.conf.Positional[Literal["add", "list", "remove"]] = "list"
    """Add a key, list all, or remove one."""
    role: Literal["read", "admin"] = "read"
    """Role of a new key. read: search and judge; admin: change samples and the index, too."""
    id: str = ""
    """Id of the key to remove, as the list shows it."""

    name: ClassVar[str] = "keys"

    def run(self) -> int:
        workspace = self.open()
        from ampere.store.keys import add_key, read_keys, remove_key

        if self.action == "add":
            stored, key = add_key(workspace, self.role)
            print(f"key {stored.key_id} of role {stored.role}; it is not shown again:\n{key}")
        elif self.action == "remove":
            remove_key(workspace, self.id)
            print(f"removed key {self.id}")
        else:
            from ampere.reports.text_table import new_table, render_table

            table = new_table("id", "role", "created")
            for stored in read_keys(workspace):
                table.add_row(stored.key_id, stored.role, stored.created)
            print(render_table(table))
        return 0
