"""Packages that pyproject.toml can't find by itself: `conf/` is installed as `nas_conf`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["nas", "nas.*", "search_spaces", "search_spaces.*"]), "nas_conf"],
    package_dir={"nas_conf": "conf"},
    package_data={"nas_conf": ["**/*.yaml"]},
)
