/*
 * The program a container runtime starts as `spiderpool`, `coordinator` or `ifacer`: it carries one CNI
 * request to Orbweaver's agent over a Unix socket and prints the answer. All decisions are the agent's.
 *
 * What must always hold:
 *   - it ends in bounded time, whatever stdin and the agent do;
 *   - a non-zero exit comes with a CNI error object on stdout (CNI spec, "Error"), and an exit of 0 is one that
 *     the agent (or the VERSION table below) asked for: a lost agent never looks like success (STATUS says only whether an
 *     ADD would be served, and behind an agent that ended in order it waits for the next one);
 *   - bytes pass through unchanged in both directions, but for a line break behind stdin; nothing is interpreted but the two
 *     keys that are needed before the agent can be asked: which socket, and which CNI version an error has to name;
 *   - while an agent is replaced no pod fails and none hangs: an ADD waits for the next agent, and a DEL is kept on disk for
 *     it, until the agent has done it or an ADD of the same attachment takes it back. That an agent was here is told by the
 *     directory SOCKET.spool, which agents make and this program does not.
 *
 * Wire (integers are unsigned, 32 bit, big-endian):
 *   request   "OWC1" length body     body = "plugin=NAME\0" ("CNI_X=value\0")* "\0" stdin "\n"
 *   response  "OWR1" exit-status length stdout
 *
 * It is C, linked statically and without stdio, because it starts for every pod: nodes need not have Python,
 * and a Python start costs more than the whole allocation.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h> /* renameat; nothing of stdio itself */
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/var/run/spidernet/spiderpool.sock"
#define REQUEST_LIMIT (1u << 20)  /* environment and stdin together */
#define RESPONSE_LIMIT (4u << 20)
#define REQUEST_HEADER 8
#define RESPONSE_HEADER 12
#define TIMEOUT_SECONDS 60        /* for everything; ORBWEAVER_SHIM_TIMEOUT=1..600 overrides it */
#define LOCAL_TIMEOUT_SECONDS 5   /* for stdin, where the answer needs no agent */
#define ID_SHOWN 128              /* of a container id in an error; real ones have 64 */
#define WAIT_SECONDS 10           /* of an ADD for an agent that is replaced; ORBWEAVER_SHIM_WAIT=0..60 overrides it */
#define LEFT_SECONDS 30           /* and for the one behind an agent that ended in order, from that end on */
#define WAIT_STEP 50              /* milliseconds between two looks for it */
#define KEPT_MOST 4096            /* DELs in the spool */
#define KEPT_SIZE (1u << 16)      /* of one; a larger one is kept without its configuration, which it can do without */

/* CNI spec 1.1.0, "Error". */
enum { CNI_BAD_ENVIRONMENT = 4, CNI_IO_FAILURE = 5, CNI_DECODE_FAILURE = 6, CNI_BAD_CONFIG = 7, CNI_TRY_AGAIN = 11,
       CNI_NOT_AVAILABLE = 50 };

struct slice { const char *at; size_t len; };

/* Zero pages cost nothing until they are touched, so the buffers are as large as the limits. */
static char request[REQUEST_HEADER + REQUEST_LIMIT];
static char response[RESPONSE_HEADER + RESPONSE_LIMIT];
static char printed[4096];
static size_t printed_len;

static const char *plugin = "orbweaver-shim", *command;
static struct slice netconf;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)] = DEFAULT_SOCKET;
static int64_t deadline;
static unsigned timeout_seconds = TIMEOUT_SECONDS, wait_seconds = WAIT_SECONDS;
static int is_del, overlong; /* a DEL is sent without its configuration when that is too large: it needs none */
static const char *gone_why = "";
static int gone_number;

extern char **environ;

/* ---- time and file descriptors ------------------------------------------------------------------------- */

static int64_t milliseconds(void)
{
    struct timespec now; /* the plain system call: the C library's vDSO look-up costs more than its three uses */
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void allow(unsigned seconds)
{
    deadline = milliseconds() + (int64_t)seconds * 1000;
}

/* 0 once `fd` is ready (or has failed, which the read or write will then say), else an errno. */
static int await(int fd, short events)
{
    struct pollfd entry = {.fd = fd, .events = events};
    for (;;) {
        int64_t left = deadline - milliseconds();
        if (left <= 0)
            return ETIMEDOUT;
        int n = poll(&entry, 1, (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return errno;
    }
}

static int write_stdout(const char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, at, len);
        if (n >= 0) {
            at += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (await(STDOUT_FILENO, POLLOUT) != 0)
                return -1;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

/* ---- what is printed without the agent ----------------------------------------------------------------- */

static void put_slice(struct slice text)
{
    size_t room = sizeof printed - printed_len;
    size_t n = text.len < room ? text.len : room;
    memcpy(printed + printed_len, text.at, n);
    printed_len += n;
}

static void put(const char *text)
{
    put_slice((struct slice){text, strlen(text)});
}

static void put_number(unsigned value)
{
    char digits[10];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    put_slice((struct slice){digits + at, sizeof digits - at});
}

/* As the inside of a JSON string. What is not printable ASCII becomes '?': such bytes are no valid container
 * id, path or name, and they need not be valid UTF-8 either, which JSON asks for. */
static void put_escaped(const char *text, size_t limit)
{
    for (; *text != 0 && limit > 0; text++, limit--) {
        char c = *text;
        if (c < 0x20 || c > 0x7e)
            c = '?';
        if (c == '"' || c == '\\')
            put("\\");
        put_slice((struct slice){&c, 1});
    }
}

/* ---- the two keys of the network configuration ---------------------------------------------------------- */

static size_t skip_space(size_t at)
{
    while (at < netconf.len && strchr(" \t\r\n", netconf.at[at]) != NULL && netconf.at[at] != 0)
        at++;
    return at;
}

/* The string that starts after the quote at `at - 1`, escapes untouched; .at is NULL when it does not end. */
static struct slice string_at(size_t at)
{
    for (size_t end = at; end < netconf.len; end++) {
        if (netconf.at[end] == '"')
            return (struct slice){netconf.at + at, end - at};
        if (netconf.at[end] == '\\')
            end++;
    }
    return (struct slice){NULL, 0};
}

/* The first string value of `key`, at any depth or only in the outermost object (a prevResult has a cniVersion
 * too); .at is NULL when there is none. It is a scan and not a parser: broken JSON is the agent's to refuse. */
static struct slice string_value(const char *key, int outermost)
{
    size_t key_len = strlen(key);
    int depth = 0;
    for (size_t at = 0; at < netconf.len; at++) {
        char c = netconf.at[at];
        if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
        if (c != '"')
            continue;
        struct slice name = string_at(at + 1);
        if (name.at == NULL)
            break;
        at += name.len + 1;
        size_t next = skip_space(at + 1);
        if (next >= netconf.len || netconf.at[next] != ':' || (outermost && depth != 1))
            continue;
        if (name.len != key_len || memcmp(name.at, key, key_len) != 0)
            continue;
        next = skip_space(next + 1);
        if (next < netconf.len && netconf.at[next] == '"')
            return string_at(next + 1);
    }
    return (struct slice){NULL, 0};
}

static struct slice cni_version(const char *otherwise)
{
    struct slice found = string_value("cniVersion", 1);
    int plausible = found.at != NULL && found.len > 0 && found.len < 16;
    for (size_t i = 0; plausible && i < found.len; i++)
        plausible = (found.at[i] >= '0' && found.at[i] <= '9') || found.at[i] == '.';
    return plausible ? found : (struct slice){otherwise, strlen(otherwise)};
}

/* 0 when socket_path holds what the configuration says (or the default), -1 when it cannot be a socket's path, and
 * socket_path has the default. */
static int choose_socket(void)
{
    struct slice found = string_value("ipam_unix_socket_path", 0);
    if (found.at == NULL || found.len == 0)
        return 0;
    char chosen[sizeof socket_path];
    size_t len = 0;
    for (size_t i = 0; i < found.len; i++) {
        if (found.at[i] == '\\') {
            i++;
            if (strchr("/\\\"", found.at[i]) == NULL)
                return -1;
        }
        if (found.at[i] == 0 || len == sizeof chosen - 1)
            return -1;
        chosen[len++] = found.at[i];
    }
    chosen[len] = 0;
    memcpy(socket_path, chosen, len + 1);
    return 0;
}

/* ---- answers of its own --------------------------------------------------------------------------------- */

static _Noreturn void fail(unsigned code, const char *message, const char *path, const char *rest, const char *why,
                           int number)
{
    const char *id = NULL;
    for (char **e = environ; *e != NULL; e++)
        if (strncmp(*e, "CNI_CONTAINERID=", 16) == 0)
            id = *e + 16;
    put("{\"cniVersion\":\"");
    put_slice(cni_version("1.0.0"));
    put("\",\"code\":");
    put_number(code);
    put(",\"msg\":\"");
    put(message);
    put_escaped(path, sizeof socket_path);
    put(rest);
    put("\",\"details\":\"plugin ");
    put_escaped(plugin, ID_SHOWN);
    put(", command ");
    put_escaped(command != NULL && *command != 0 ? command : "(none)", 32);
    put(", container ");
    put_escaped(id != NULL && *id != 0 ? id : "(none)", ID_SHOWN);
    put(": ");
    put(why);
    if (number != 0) {
        put(" (errno ");
        put_number((unsigned)number);
        put(")");
    }
    put("\"}\n");
    write_stdout(printed, printed_len);
    _exit(1);
}

static _Noreturn void agent_away(const char *why, int number)
{
    unsigned code = command != NULL && strcmp(command, "STATUS") == 0 ? CNI_NOT_AVAILABLE : CNI_TRY_AGAIN;
    fail(code, "Orbweaver's agent at ", socket_path,
         " cannot be reached; nothing is known to have changed, the request can be repeated. See that the agent runs"
         " on this node and listens there (its log says why not)",
         why, number);
}

/* The agent is not there, or not any more: another one may be soon. */
static int agent_gone(const char *why, int number)
{
    gone_why = why;
    gone_number = number;
    return -1;
}

static int connection_lost(int number)
{
    if (number == ETIMEDOUT)
        agent_away("it did not answer in time", number);
    return agent_gone("the connection broke before the whole answer", number);
}

static _Noreturn void too_large(void)
{
    fail(CNI_DECODE_FAILURE, "The network configuration and the CNI_ variables are larger than 1 MiB together", "",
         "; make the configuration smaller", "the request was not sent", 0);
}

static _Noreturn void answer_version(void)
{
    put("{\"cniVersion\":\"");
    put_slice(cni_version("1.1.0"));
    put("\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
    _exit(write_stdout(printed, printed_len) == 0 ? 0 : 1);
}

/* ---- request and response ------------------------------------------------------------------------------- */

static size_t add_string(size_t at, const char *prefix, const char *text)
{
    size_t a = strlen(prefix), b = strlen(text);
    if (a + b + 1 > sizeof request - at)
        too_large();
    memcpy(request + at, prefix, a);
    memcpy(request + at + a, text, b + 1);
    return at + a + b + 1;
}

/* Fills `request` behind the environment and sets `netconf`; returns the request's length. */
static size_t read_stdin(size_t at)
{
    char *start = request + at;
    netconf.at = start;
    if (isatty(STDIN_FILENO)) /* somebody tries it by hand: there is nothing to wait for */
        return at;
    for (;;) {
        int full = at == sizeof request; /* what follows is read into the response's buffer and forgotten */
        int number = await(STDIN_FILENO, POLLIN);
        if (number == 0) {
            ssize_t n = full ? read(STDIN_FILENO, response, sizeof response) : read(STDIN_FILENO, request + at, sizeof request - at);
            if (n == 0)
                return at;
            if (n > 0 && full && !is_del)
                too_large();
            if (n > 0 && full) {
                overlong = 1;
                continue;
            }
            if (n > 0) {
                at += (size_t)n;
                netconf.len = at - (size_t)(start - request);
                continue;
            }
            if (errno == EINTR || errno == EAGAIN)
                continue;
            number = errno;
        }
        fail(CNI_IO_FAILURE, "The network configuration could not be read from stdin", "",
             "; the runtime has to write it and close the pipe",
             number == ETIMEDOUT ? "stdin was not closed in time" : "reading failed", number);
    }
}

static void store_length(char *at, size_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 8)
        at[i] = (char)(value & 0xff);
}

static uint32_t load(const char *at)
{
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Its socket, or -1 where no agent is there. */
static int connect_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, sizeof socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        agent_away("no socket could be made", errno);
    /* With a full backlog a blocking connect() waits for SO_SNDTIMEO, a non-blocking one could only spin. */
    struct timeval limit = {.tv_sec = timeout_seconds};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        switch (errno) {
        case EINTR:
            if (milliseconds() < deadline)
                continue;
            /* fall through */
        case EAGAIN:
            agent_away("its queue of connections stayed full", ETIMEDOUT);
        case ENOENT:
            close(fd);
            return agent_gone("no such file, so no agent has started yet or its directory is not shared with the host",
                              ENOENT);
        case ECONNREFUSED:
            close(fd);
            return agent_gone("connection refused, so the agent that made the socket is gone", ECONNREFUSED);
        case EACCES:
            agent_away("permission denied, it is for root only", EACCES);
        default:
            agent_away("the connection failed", errno);
        }
    }
    return fd;
}

static int send_request(int fd, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, request + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            at += (size_t)n;
        } else if (errno == EAGAIN) {
            int number = await(fd, POLLOUT);
            if (number != 0)
                return connection_lost(number);
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return 0; /* it may have answered and closed before it read everything: the answer decides */
        } else if (errno != EINTR) {
            return connection_lost(errno);
        }
    }
    return 0;
}

/* Returns the exit status, -1 where the agent is gone; the text is in `response` behind the header, `*len` bytes. */
static int receive_response(int fd, size_t *len)
{
    size_t have = 0, need = RESPONSE_HEADER;
    while (have < need) {
        ssize_t n = recv(fd, response + have, need - have, MSG_DONTWAIT);
        if (n == 0)
            return agent_gone("it hung up before the whole answer", 0);
        if (n < 0) {
            int number = errno == EAGAIN ? await(fd, POLLIN) : errno == EINTR ? 0 : errno;
            if (number != 0)
                return connection_lost(number);
            continue;
        }
        have += (size_t)n;
        if (memcmp(response, "OWR1", have < 4 ? have : 4) != 0)
            agent_away("what answered there is not an Orbweaver agent of this version", EPROTO);
        if (have == RESPONSE_HEADER && need == RESPONSE_HEADER) {
            *len = load(response + 8);
            if (load(response + 4) > 255 || *len > RESPONSE_LIMIT)
                agent_away("its answer is broken: status or length is out of range", EPROTO);
            need += *len;
        }
    }
    return (int)load(response + 4);
}

/* ---- the spool ------------------------------------------------------------------------------------------ */

/* The agent's spool, -1 where no agent was ever here. */
static int open_spool(void)
{
    char path[sizeof socket_path + 8];
    size_t len = strlen(socket_path);
    memcpy(path, socket_path, len);
    memcpy(path + len, ".spool", 7);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The value of a CNI_ variable as a part of a file's name; NULL where it is none. The characters are those that the CNI
 * specification allows in a container id. */
static const char *name_part(const char *variable, size_t most)
{
    const char *value = NULL;
    size_t len = strlen(variable);
    for (char **e = environ; *e != NULL && value == NULL; e++)
        if (strncmp(*e, variable, len) == 0)
            value = *e + len;
    if (value == NULL || *value == 0 || *value == '.' || strlen(value) > most)
        return NULL;
    for (const char *c = value; *c != 0; c++)
        if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || strchr("._-", *c)))
            return NULL;
    return value;
}

static int is_full(int directory)
{
    unsigned count = 0;
    long got;
    while ((got = syscall(SYS_getdents64, directory, response, sizeof response)) > 0)
        for (long at = 0; at < got; count++)
            at += *(unsigned short *)(void *)(response + at + 16); /* d_reclen */
    return got < 0 || count >= KEPT_MOST;
}

/* The name of the file in which a DEL of this attachment is kept; -1 where it can have none. */
static int kept_name(char name[192])
{
    const char *container = name_part("CNI_CONTAINERID=", 128), *interface = name_part("CNI_IFNAME=", 15);
    if (container == NULL || interface == NULL || strlen(plugin) > 32)
        return -1;
    const char *parts[] = {container, "@", interface, "@", plugin};
    *name = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        strcat(name, parts[i]); /* 128 + 15 + 32 + 2 at most */
    return 0;
}

/* Keeps a DEL for the next agent; 0 once that is durable. One that is told again takes the place of the first. */
static int keep(size_t len, size_t head)
{
    char name[192], unfinished[32] = ".new-";
    int directory = open_spool();
    if (directory < 0 || kept_name(name) != 0 || is_full(directory))
        return -1;
    size_t end = strlen(unfinished);
    for (unsigned pid = (unsigned)getpid(); pid != 0; pid /= 10)
        unfinished[end++] = (char)('0' + pid % 10);
    if (len > KEPT_SIZE) {
        len = head;
        store_length(request + 4, len - REQUEST_HEADER);
    }
    int fd = openat(directory, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    size_t at = 0;
    while (at < len) {
        ssize_t n = write(fd, request + at, len - at);
        if (n < 0 && errno != EINTR)
            break;
        at += n > 0 ? (size_t)n : 0;
    }
    if (at == len && fsync(fd) == 0 && renameat(directory, unfinished, directory, name) == 0 && fsync(directory) == 0)
        return 0;
    unlinkat(directory, unfinished, 0);
    return -1;
}

/* An ADD takes back what is kept of its attachment, before the agent hears of it: the runtime sends it only once the DEL was
 * answered. It is done here and not by the agent, for which each look at a file is a turn of its threads. */
static void take_back(void)
{
    char name[192];
    int directory = open_spool();
    if (directory < 0)
        return;
    if (kept_name(name) == 0)
        unlinkat(directory, name, 0);
    close(directory);
}

/* Whether an agent has just ended in order, so that the next one is on its way. A clock that was changed meanwhile costs
 * nothing but this. */
static int has_just_left(int directory)
{
    struct stat left;
    struct timespec now;
    if (wait_seconds == 0 || fstatat(directory, ".left", &left, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t ago = (int64_t)now.tv_sec - (int64_t)left.st_mtim.tv_sec;
    return ago >= 0 && ago < LEFT_SECONDS;
}

/* Whether an ADD or CHECK should look again: an agent was here, so another one is about to start. Both may be repeated. */
static int worth_waiting(int64_t until)
{
    int64_t now = milliseconds();
    if (is_del || now + WAIT_STEP >= deadline || (strcmp(command, "ADD") != 0 && strcmp(command, "CHECK") != 0))
        return 0;
    int directory = open_spool();
    if (directory < 0)
        return 0;
    int worth = now < until || has_just_left(directory);
    close(directory);
    if (worth)
        poll(NULL, 0, WAIT_STEP);
    return worth;
}

/* Whether STATUS may say that pods can be added, while an agent is replaced: what they ask for waits for the next one. */
static int is_replaced(void)
{
    int directory = strcmp(command, "STATUS") == 0 ? open_spool() : -1;
    if (directory < 0)
        return 0;
    int left = has_just_left(directory);
    close(directory);
    return left;
}

/* One exchange: the exit status, -1 where the agent is gone. */
static int ask_agent(size_t len, size_t *text)
{
    int fd = connect_agent();
    if (fd < 0)
        return -1;
    if (strcmp(command, "ADD") == 0)
        take_back();
    int status = send_request(fd, len);
    if (status == 0)
        status = receive_response(fd, text);
    close(fd);
    return status;
}

/* ---- start ---------------------------------------------------------------------------------------------- */

static void keep_standard_descriptors(void)
{
    int fd; /* else the socket could become 0 or 1 where the caller closed them */
    while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd > STDERR_FILENO)
        close(fd);
}

static void set_seconds(unsigned *seconds, const char *text, unsigned least, unsigned most)
{
    unsigned value = 0;
    const char *digit = text;
    for (; *digit >= '0' && *digit <= '9' && value <= most; digit++)
        value = value * 10 + (unsigned)(*digit - '0');
    if (digit > text && *digit == 0 && value >= least && value <= most)
        *seconds = value;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    keep_standard_descriptors();
    if (argc > 0 && argv[0] != NULL && *argv[0] != 0) {
        const char *slash = strrchr(argv[0], '/');
        plugin = slash != NULL ? slash + 1 : argv[0];
    }
    for (char **e = environ; *e != NULL; e++) {
        if (strncmp(*e, "CNI_COMMAND=", 12) == 0)
            command = *e + 12;
        if (strncmp(*e, "ORBWEAVER_SHIM_TIMEOUT=", 23) == 0)
            set_seconds(&timeout_seconds, *e + 23, 1, 600);
        if (strncmp(*e, "ORBWEAVER_SHIM_WAIT=", 20) == 0)
            set_seconds(&wait_seconds, *e + 20, 0, 60);
    }
    int no_command = command == NULL || *command == 0;
    int version = !no_command && strcmp(command, "VERSION") == 0;
    is_del = !no_command && strcmp(command, "DEL") == 0;
    allow((no_command || version) && timeout_seconds > LOCAL_TIMEOUT_SECONDS ? LOCAL_TIMEOUT_SECONDS : timeout_seconds);

    size_t len = add_string(REQUEST_HEADER, "plugin=", plugin);
    for (char **e = environ; *e != NULL; e++)
        if (strncmp(*e, "CNI_", 4) == 0 && strchr(*e, '=') != NULL)
            len = add_string(len, *e, "");
    len = add_string(len, "", "");
    size_t head = len;
    len = read_stdin(len);

    if (no_command)
        fail(CNI_BAD_ENVIRONMENT, "CNI_COMMAND is not set", "",
             ": this program is a CNI plugin, a container runtime starts it (CNI spec, \\\"CNI operations\\\")",
             "the request was not sent", 0);
    if (version)
        answer_version();
    if (choose_socket() != 0 && !is_del)
        fail(CNI_BAD_CONFIG, "ipam_unix_socket_path is not a path that a Unix socket can have", "",
             "; it may have at most 107 bytes and no escapes", "the request was not sent", 0);

    if (overlong)
        len = head;
    else if (len > head && len < sizeof request)
        request[len++] = '\n'; /* means nothing in JSON; a server of HTTP refuses the line, and would wait for its end else */
    memcpy(request, "OWC1", 4);
    store_length(request + 4, len - REQUEST_HEADER);
    size_t text = 0;
    int64_t until = milliseconds() + (int64_t)wait_seconds * 1000;
    int status;
    do
        status = ask_agent(len, &text);
    while (status < 0 && worth_waiting(until));
    if (status < 0 && is_del && keep(len, head) == 0)
        return 0;
    if (status < 0 && is_replaced())
        return 0;
    if (status < 0)
        agent_away(gone_why, gone_number);
    if (write_stdout(response + RESPONSE_HEADER, text) != 0 && status == 0)
        status = 1; /* the runtime did not get the result, so for it this is no success */
    return status;
}
