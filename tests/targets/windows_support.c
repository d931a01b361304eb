/* windows_support.c - what a program's own C library gives to a model that is linked into it
 * statically on Windows: the mark of floating point and the probe of large stack frames. Here they
 * only have to exist. */
int _fltused;
void __chkstk(void) {}
