#ifndef MINI_H
#define MINI_H

/* Print a line, and count it. */
void mini_say(const char *text);

/* How many lines were printed. */
int mini_count(void);

extern const char mini_version[];

#endif
