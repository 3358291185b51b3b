"""``python -m wsi_mivpg``: the program, where the command ``wsi-mivpg`` is not on the path."""

from wsi_mivpg.cli.main import main

if __name__ == "__main__":
    main()
