"""`python -m corpus_teacher`: the command line."""

from corpus_teacher.cli.main import main

if __name__ == "__main__":
    main()
