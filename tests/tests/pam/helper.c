/* Calls libpam as its arguments say, one transaction after the other.
 *
 * helper CONFDIR SERVICE USER STEP...
 *
 * A user of "-" is none, and one of "@NAME" is a string in a page that is not present. CONFDIR "-" means pam_start and
 * /etc/pam.d. Results are printed, one a line. The library is linked, or opened as PAM_LIBRARY says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef LINKED
#define F(name) name
#else
static void *library;
#define F(name) ((__typeof__(&name))dlsym(library, #name))
#endif

static const char *answer = "";

/* A prompt that shows what is typed asks for the name, one that does not for the password. */
static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data) {
    struct pam_response *all = calloc(count, sizeof *all);
    (void)data;
    for (int i = 0; i < count; i++) {
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_ON)
            all[i].resp = strdup(getenv("PAM_NAME") ? getenv("PAM_NAME") : "late");
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            all[i].resp = strdup(answer);
    }
    *responses = all;
    return PAM_SUCCESS;
}

/* A copy of the text in a mapped file of which no page has been touched. */
static const char *absent(const char *text) {
    char name[] = "/tmp/pam-helper-XXXXXX";
    int fd = mkstemp(name);
    if (fd < 0 || write(fd, text, strlen(text) + 1) < 0)
        exit(99);
    unlink(name);
    char *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return map;
}

static const char *string(const char *text) {
    if (strcmp(text, "-") == 0)
        return NULL;
    return text[0] == '@' ? absent(text + 1) : text;
}

int main(int argc, char **argv) {
    struct pam_conv conversation = {converse, NULL};
    int repeat = getenv("PAM_REPEAT") ? atoi(getenv("PAM_REPEAT")) : 1;
    if (argc < 4)
        return 98;
    if (getenv("PAM_ANSWER"))
        answer = getenv("PAM_ANSWER");
#ifndef LINKED
    library = dlopen(getenv("PAM_LIBRARY") ? getenv("PAM_LIBRARY") : "libpam.so.0", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 97;
    }
#endif
    if (getenv("PAM_WAIT")) {
        /* Until somebody says so. */
        char byte;
        puts("waits");
        fflush(stdout);
        if (read(0, &byte, 1) < 0)
            return 96;
    }
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    while (repeat-- > 0) {
        if (getenv("PAM_PAUSE_MS")) {
            /* A load of so many a second. */
            due.tv_nsec += atol(getenv("PAM_PAUSE_MS")) * 1000000;
            due.tv_sec += due.tv_nsec / 1000000000;
            due.tv_nsec %= 1000000000;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        }
        pam_handle_t *pam = NULL;
        const char *service = string(argv[2]), *user = string(argv[3]);
        int result = strcmp(argv[1], "-") == 0
                         ? F(pam_start)(service, user, &conversation, &pam)
                         : F(pam_start_confdir)(service, user, &conversation, argv[1], &pam);
        if (result != PAM_SUCCESS) {
            printf("start %d\n", result);
            return 95;
        }
        for (int i = 4; i < argc; i++) {
            const char *step = argv[i];
            int type;
            if (strcmp(step, "auth") == 0)
                result = F(pam_authenticate)(pam, 0);
            else if (strcmp(step, "auth-silent") == 0)
                result = F(pam_authenticate)(pam, PAM_SILENT);
            else if (strcmp(step, "account") == 0)
                result = F(pam_acct_mgmt)(pam, 0);
            else if (strcmp(step, "cred") == 0)
                result = F(pam_setcred)(pam, PAM_ESTABLISH_CRED);
            else if (strcmp(step, "open") == 0)
                result = F(pam_open_session)(pam, 0);
            else if (strcmp(step, "close") == 0)
                result = F(pam_close_session)(pam, 0);
            else if (strcmp(step, "passwd") == 0)
                result = F(pam_chauthtok)(pam, 0);
            else if (strcmp(step, "auth-unknown") == 0) {
                /* Who asks for the name in the place of a password gets what is typed. */
                F(pam_set_item)(pam, PAM_USER, getenv("PAM_ANSWER"));
                result = F(pam_authenticate)(pam, 0);
            } else if (sscanf(step, "env%d", &type) == 1)
                result = F(pam_set_item)(pam, type, getenv("PAM_ANSWER"));
            else if (sscanf(step, "item%d=", &type) == 1)
                result = F(pam_set_item)(pam, type, string(strchr(step, '=') + 1));
            else if (strcmp(step, "fork-end") == 0 || strcmp(step, "fork-auth") == 0) {
                pid_t child = fork();
                if (child == 0) {
                    if (strcmp(step, "fork-auth") == 0)
                        _exit(F(pam_authenticate)(pam, 0));
                    _exit(F(pam_end)(pam, PAM_DATA_SILENT | PAM_SUCCESS));
                }
                int status = 0;
                waitpid(child, &status, 0);
                result = WEXITSTATUS(status);
            } else if (strcmp(step, "abort") == 0)
                _exit(0);
            else
                return 94;
            if (getenv("PAM_REPEAT") == NULL)
                printf("%s %d\n", step, result);
        }
        F(pam_end)(pam, result);
    }
    return 0;
}
