"""Packages that pyproject.toml can't find by itself, `conf/` as `nas_conf`, and the files in them that are no code."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["nas", "nas.*", "search_spaces", "search_spaces.*"]), "nas_conf"],
    package_dir={"nas_conf": "conf"},
    package_data={
        "nas_conf": ["**/*.yaml"],
        "nas.llm": ["prompts/*.md"],
        "nas.report": ["templates/*"],
        "search_spaces.linear_attention": ["contract.md", "notes/*.md"],
    },
)
