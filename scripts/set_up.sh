# Sourced by the scripts beside it: finds a Python and brings .venv up to date.

# A Python that is asked must answer within reason: name shims are there for versions that are not.
python_fits() {
    "$1" -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1
}

python_find() {
    local candidate
    # The environment's own first (it is there when nothing is to be done), then the user's usual one.
    for candidate in .venv/bin/python "${AYNI_PYTHON:-python3}" python3 python3.13 python3.12 \
        python3.11; do
        if python_fits "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# set_up [--dev] [--quiet]: leaves with status 1, having said why, when it cannot be done.
set_up() {
    local python
    if ! python="$(python_find)"; then
        echo "Ayni needs Python 3.11, 3.12 or 3.13, and none was found here. One command:" >&2
        if command -v apt-get >/dev/null; then
            echo "    sudo apt-get install -y python3 python3-venv" >&2
        elif command -v dnf >/dev/null; then
            echo "    sudo dnf install -y python3.13" >&2
        elif command -v pacman >/dev/null; then
            echo "    sudo pacman -S --needed python" >&2
        else
            echo "    brew install python@3.13    (or see https://www.python.org/downloads/)" >&2
        fi
        echo "If you have one elsewhere: AYNI_PYTHON=/path/to/python3.13 $0" >&2
        exit 1
    fi
    "$python" -I scripts/bootstrap.py "$@" || exit $?
}
