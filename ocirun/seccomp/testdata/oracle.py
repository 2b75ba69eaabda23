import base64, ctypes, json, sys, tempfile
try:
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
except OSError:
    sys.exit("no libseccomp")

class Compare(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
lib.seccomp_release.argtypes = [ctypes.c_void_p]

out = []
for p in json.load(sys.stdin):
    ctx = lib.seccomp_init(p["default"])
    if not ctx:
        sys.exit("seccomp_init %#x" % p["default"])
    for a in p["archs"]:
        r = lib.seccomp_arch_add(ctx, a)
        if r not in (0, -17):
            sys.exit("seccomp_arch_add %#x: %d" % (a, r))
    unknown = []
    for rule in p["rules"] or []:
        n = lib.seccomp_syscall_resolve_name(rule["name"].encode())
        if n == -1:
            unknown.append(rule["name"])
            continue
        args = rule["args"] or []
        array = (Compare * max(len(args), 1))(*[Compare(*x) for x in args])
        r = lib.seccomp_rule_add_array(ctx, rule["answer"], n, len(args), array)
        if r not in (0, -17):
            sys.exit("seccomp_rule_add_array %r: %d" % (rule, r))
    with tempfile.TemporaryFile() as f:
        r = lib.seccomp_export_bpf(ctx, f.fileno())
        if r != 0:
            sys.exit("seccomp_export_bpf: %d" % r)
        f.seek(0)
        out.append({"Code": base64.b64encode(f.read()).decode(), "Unknown": unknown})
    lib.seccomp_release(ctx)
json.dump(out, sys.stdout)
