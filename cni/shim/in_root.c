/*
 * orbweaver-in-root ROOT PROGRAM [ARGUMENT]...: become PROGRAM in the file system at ROOT.
 *
 * The agent's container sees the node's file system at a directory of its own, and the CNI plugins that it executes must see
 * it as the node does: their leases, locks and network namespaces have fixed places. It is a program because the agent has
 * many threads, between whose fork and exec nothing but exec is safe; it is C because it starts for every plugin, and the
 * image has no coreutils.
 *
 * What must always hold: PROGRAM runs with ROOT as its root and working directory, or nothing runs, the exit status is 127
 * and standard error says why.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

static int fail(const char *what, const char *path)
{
    const char *why = strerror(errno);
    say(what);
    say(path);
    say(": ");
    say(why);
    say("\n");
    return 127;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        say("orbweaver-in-root ROOT PROGRAM [ARGUMENT]...\n");
        return 127;
    }
    if (chroot(argv[1]) != 0 || chdir("/") != 0)
        return fail("cannot enter ", argv[1]);
    execv(argv[2], argv + 2);
    return fail("cannot execute ", argv[2]);
}
