"""The client is light: programs that search need neither torch nor Ray."""

import subprocess
import sys


def test_client_imports_httpx_and_the_standard_library_only() -> None:
    program = """
import sys
import ampere.client
heavy = {"torch", "ray", "lance", "pyarrow", "numpy", "pydantic", "fastapi", "faiss", "av"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
own = [name for name in sys.modules if name.split(".")[0] == "ampere"]
assert all((name + ".").startswith("ampere.client.") or name == "ampere" for name in own), own
assert "httpx" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
