#!/usr/bin/env python3
"""Compiles every program of `variants` offline for GPUs that are not here and reports what their compilers say.

    compile.py VARIANTS FOLDER [few] [--targets=gfx90a,spirv1.0] [--only=matmul,embedding] [--rows] [--markdown]

Fails where a program does not compile, where SPIR-V is not valid and where a forward kernel spills registers. Targets
whose compilers are missing are named and left out; exit status 77 if none is left. What was compiled before is
remembered in FOLDER. --only names files of cl/. --rows prints a line for each kernel of each program, not only the
table; --markdown prints the table of docs/portability.md."""
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

# ---- Tools ----


def tool(*names):
    return next((path for path in map(shutil.which, names) if path), None)


def first(*patterns):
    return next((path for pattern in patterns for path in sorted(glob.glob(pattern), reverse=True)), None)


CLANG = os.environ.get('CLM_CLANG') or tool('clang-15', 'clang-14', 'clang')
TRANSLATOR = tool('llvm-spirv-15', 'llvm-spirv-14', 'llvm-spirv')
VALIDATOR = tool('spirv-val')
PTXAS = tool('ptxas') or first('/usr/local/cuda*/bin/ptxas', '/opt/cuda*/bin/ptxas')
DEVICE_LIBRARY = first('/usr/lib/*/amdgcn/bitcode', '/usr/lib/amdgcn/bitcode', '/opt/rocm*/amdgcn/bitcode')
LIBCLC = first('/usr/lib/clc/nvptx64--nvidiacl.bc', '/usr/share/clc/nvptx64--nvidiacl.bc')


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError('%s\n%s' % (' '.join(command), (done.stderr or done.stdout).strip()[:2000]))
    return done.stdout + done.stderr


def clang(source, options, out, *more):
    run([CLANG, '-x', 'cl', '-O2', '-D__OPENCL_VERSION__=120', *options.split(), *more, '-o', out, source])


# ---- Targets: each gives a list of kernels: name, registers, local, spills (bytes or registers), occupancy ----


def amd(processor, library=True):
    """Without the library of functions such as exp, where it does not know the processor: they are calls then, around
    which registers are saved, so that spills say nothing."""
    def compile(source, options, out):
        functions = '--rocm-device-lib-path=' + os.path.dirname(DEVICE_LIBRARY) + '/bitcode' if library else '-nogpulib'
        clang(source, options, out, '-target', 'amdgcn-amd-amdhsa', '-mcpu=' + processor, '-S', functions)
        text = open(out).read()
        occupancy = dict(re.findall(r'^(\w+):.*?; Occupancy: (\d+)', text, re.S | re.M))
        kernels = []
        for block in re.split(r'\n  - \.a(?:gpr_count|rgs):', text[text.find('amdhsa.kernels:'):])[1:]:
            def number(name):
                found = re.search(r'\.%s:\s+(\d+)' % name, block)
                return int(found.group(1)) if found else 0
            name = re.search(r'\.name:\s+(\w+)\n\s+\.private_segment', block).group(1)
            kernels.append(dict(name=name, registers=number('vgpr_count'), local=number('group_segment_fixed_size'),
                                spills=number('vgpr_spill_count') if library else 0,  # scalar ones go to vector registers
                                stack=number('private_segment_fixed_size'), occupancy=int(occupancy.get(name, 0))))
        return kernels
    return compile


def nvidia(architecture):
    ptx = 75 if architecture >= 80 else 70

    def compile(source, options, out):
        clang(source, options, out + '.ptx', '-target', 'nvptx64-nvidia-nvcl', '-S', '-Xclang', '-target-cpu',
              '-Xclang', 'sm_%d' % min(architecture, 80), '-Xclang', '-target-feature', '-Xclang', '+ptx%d' % ptx,
              '-Xclang', '-mlink-builtin-bitcode', '-Xclang', LIBCLC)
        own = late_assembly(out + '.ptx') if 'LATE_ASSEMBLY' in options else ''
        text = run([PTXAS, '-v', '-arch=sm_%d%s' % (architecture, own), out + '.ptx', '-o', out])
        os.remove(out + '.ptx')
        work_groups = work_groups_of(source, options)
        kernels = []
        for name, block in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", text, re.S):
            def number(pattern):
                found = re.search(pattern, block)
                return int(found.group(1)) if found else 0
            registers, local = number(r'Used (\d+) registers'), number(r'(\d+) bytes smem')
            kernels.append(dict(name=name, registers=registers, local=local,
                                spills=number(r'(\d+) bytes spill stores') + number(r'(\d+) bytes spill loads'),
                                stack=number(r'(\d+) bytes stack frame'),
                                occupancy=resident_warps(architecture, work_groups.get(name, 0), registers, local)))
        return kernels
    return compile


def late_assembly(path):
    """As src/backend/opencl/late_assembly.c does; gives what is added to the architecture's name."""
    text = open(path).read().replace('//@ ', '').replace('.version 7.5', '.version 8.0')
    with open(path, 'w') as file:
        file.write(re.sub(r'\.target sm_\d+', '.target sm_90a', text))
    return 'a'


def work_groups_of(source, options):
    """What the kernels of a program say of their work-groups, which does not reach the PTX."""
    text = run([CLANG, '-x', 'cl', '-E', '-P', *options.split(), source])
    sizes = re.findall(r'reqd_work_group_size\(([^;{]*?)\)\)\)\s*void\s+(\w+)', text)
    return {name: eval('*'.join('(%s)' % x for x in size.replace('/', '//').split(','))) for size, name in sizes}


def resident_warps(architecture, work_group, registers, local):
    """Warps that a multiprocessor holds at a time, 0 where the kernel does not say how large its work-groups are."""
    most_warps, most_groups, memory = {75: (32, 16, 64), 80: (64, 32, 164), 90: (64, 32, 228)}[architecture]
    if not work_group:
        return 0
    warps = -(-work_group // 32)
    by_registers = 65536 // (256 * -(-registers * 32 // 256)) // warps  # given out in pieces of 256 for a warp
    own = 0 if architecture == 75 else 1024  # what the driver keeps of each work-group's share
    by_memory = memory * 1024 // (own + local) if own + local else most_groups
    return warps * min(most_warps // warps, most_groups, by_registers, by_memory)


def spirv(version, environment, *more):
    def compile(source, options, out):
        clang(source, options, out + '.bc', *more, '-target', 'spir64', '-emit-llvm', '-c',
              '-Xclang', '-disable-llvm-passes')  # the translator wants what the source says, not what -O2 makes of it
        run([TRANSLATOR, '--spirv-max-version=' + version, out + '.bc', '-o', out])
        os.remove(out + '.bc')
        run([VALIDATOR, '--target-env', environment, out])
        return [dict(name=os.path.basename(source), registers=0, local=0, spills=0, stack=0, occupancy=0)]
    return compile


def knows(processor):
    """Whether this clang knows an AMD processor."""
    return CLANG and subprocess.run([CLANG, '-x', 'cl', '-target', 'amdgcn-amd-amdhsa', '-mcpu=' + processor, '-nogpulib',
                                     '-c', '-o', os.devnull, os.devnull], capture_output=True).returncode == 0


def missing(**needed):
    return [name for name, path in needed.items() if not path]


# Name, how, for which devices of `variants`, what is missing.
AMD = missing(clang=CLANG, rocm_device_libs=DEVICE_LIBRARY)
NVIDIA = missing(clang=CLANG, libclc=LIBCLC, ptxas=PTXAS)
SPIRV = missing(clang=CLANG, llvm_spirv=TRANSLATOR, spirv_val=VALIDATOR)
HERE = os.path.dirname(__file__)
TARGETS = {
    'gfx90a': (amd('gfx90a'), ('plain', 'gfx90a', 'mfma'), AMD),
    'gfx942': (amd('gfx942', False), ('mfma',), [] if knows('gfx942') else ['clang that knows it']),
    'gfx1100': (amd('gfx1100', False), ('wmma',), [] if knows('gfx1100') else ['clang that knows it']),
    'gfx1030': (amd('gfx1030'), ('plain', 'gfx1030'), AMD),
    'sm_75': (nvidia(75), ('plain', 'nvidia'), NVIDIA),
    'sm_80': (nvidia(80), ('plain', 'nvidia', 'nvidia_bf16', 'mma'), NVIDIA),
    'sm_90': (nvidia(90), ('plain', 'nvidia', 'nvidia_bf16', 'mma', 'wgmma'), NVIDIA),
    'spirv1.0': (spirv('1.0', 'opencl1.2'), ('plain', 'gfx90a', 'gfx1030'), SPIRV),
    'spirv1.3': (spirv('1.3', 'spv1.3', '-include', os.path.join(HERE, 'shuffle.h')), ('shuffle',), SPIRV),
    'dpas': (spirv('1.3', 'spv1.3', '-include', os.path.join(HERE, 'dpas.h')), ('dpas',), SPIRV),
}

RECIPES = 5  # another number: what was compiled is forgotten

# ---- One program for one target ----


def compile_one(job):
    target, device, source, options, key, folder = job
    out = os.path.join(folder, key)
    try:
        result = dict(kernels=TARGETS[target][0](source, options, out))
    except (RuntimeError, AttributeError, OSError) as error:
        result = dict(error=str(error))
    if os.path.exists(out):
        os.remove(out)
    return job, result


def read_jobs(folder, targets, only):
    version = run([CLANG, '--version']).splitlines()[0]
    sources = {}
    for line in open(os.path.join(folder, 'variants.tsv')):
        device, family, options = line.rstrip('\n').split('\t')
        if only and family not in only:
            continue
        source = os.path.join(folder, family + '.cl')
        if source not in sources:
            sources[source] = open(source).read()
        for target in targets:
            if device in TARGETS[target][1]:
                text = '\0'.join((target, version, sources[source], options, str(RECIPES)))
                yield target, device, source, options, hashlib.sha256(text.encode()).hexdigest()[:24], folder


# ---- The report ----


def is_forward(kernel):
    return 'backward' not in kernel


def table(results):
    rows = {}
    for (target, device, *_), result in results:
        for k in result.get('kernels', ()):
            row = rows.setdefault((target, 'PTX' if device.startswith('nvidia') else 'plain', k['name']),
                                  dict(programs=0, registers=0, local=0, spilling=0, spills=0, occupancy=99))
            row['programs'] += 1
            row['registers'] = max(row['registers'], k['registers'])
            row['local'] = max(row['local'], k['local'])
            row['spills'] = max(row['spills'], k['spills'])
            row['spilling'] += k['spills'] > 0
            row['occupancy'] = min(row['occupancy'], k['occupancy'])
    print('%-9s %-6s %-28s %8s %9s %7s %9s %8s %6s' % ('target', 'form', 'kernel', 'programs', 'registers', 'local',
                                                      'occupancy', 'spilling', 'spills'))
    for (target, form, name), r in sorted(rows.items()):
        print('%-9s %-6s %-28s %8d %9d %7d %9s %8d %6d' % (target, form, name, r['programs'], r['registers'], r['local'],
                                                          r['occupancy'] or '-', r['spilling'], r['spills']))


def markdown(results):
    """A row for each kernel, a column for each target with registers: the worst of all programs."""
    targets = sorted({job[0] for job, _ in results if not job[0].startswith('spirv')})
    rows = {}
    for job, result in results:
        for k in result.get('kernels', ()) if job[0] in targets else ():
            form = ', PTX' if job[1].startswith('nvidia') and '-DCLM_PTX' in job[3] else ''
            rows.setdefault(k['name'] + form, {}).setdefault(job[0], []).append(k)
    print('| kernel | %s |\n%s' % (' | '.join(targets), '|---' * (len(targets) + 1) + '|'))
    for name, columns in sorted(rows.items()):
        cells = []
        for target in targets:
            kernels = columns.get(target)
            worst = kernels and [max(k[what] for k in kernels) for what in ('registers', 'local')]
            cells.append('%d / %d / %s%s' % (*worst, min(k['occupancy'] for k in kernels) or '-', spilling(kernels))
                         if kernels else '')
        print('| %s | %s |' % (name, ' | '.join(cells)))


def spilling(kernels):
    count = sum(k['spills'] > 0 for k in kernels)
    return ', %d of %d spill' % (count, len(kernels)) if count else ''


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith('--')]
    options = dict(a[2:].split('=', 1) if '=' in a else (a[2:], '1') for a in sys.argv[1:] if a.startswith('--'))
    program, folder, few = arguments[0], arguments[1], arguments[2:]
    os.makedirs(folder, exist_ok=True)
    print(run([program, folder, *few]).strip())
    chosen = options.get('targets', ','.join(TARGETS)).split(',')
    for target in chosen:
        if TARGETS[target][2]:
            print('%s left out: no %s' % (target, ', '.join(TARGETS[target][2])))
    chosen = [target for target in chosen if not TARGETS[target][2]]
    if not chosen:
        print('no compiler for any target')
        return 77
    memory = os.path.join(folder, 'compiled.json')
    known = json.load(open(memory)) if os.path.exists(memory) else {}
    jobs = list(read_jobs(folder, chosen, options['only'].split(',') if 'only' in options else ()))
    new = list({job[4]: job for job in jobs if job[4] not in known}.values())  # devices share plain programs
    print('%d programs x targets, %d of them to compile' % (len(jobs), len(new)), flush=True)

    def remember():
        keep = {job[4] for job in jobs} if not {'only', 'targets'} & set(options) else known
        with open(memory, 'w') as file:
            json.dump({key: known[key] for key in keep if 'kernels' in known.get(key, ())}, file)

    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get('CLM_JOBS', os.cpu_count() or 2))) as pool:
        for number, (job, result) in enumerate(pool.map(compile_one, new)):
            known[job[4]] = result
            if 'error' in result:
                print('%s for %s\n%s' % (os.path.basename(job[2]), job[0], result['error']), flush=True)
            if number % 200 == 199:  # a run that is cut short is not lost
                remember()
    remember()
    results = [(job, known[job[4]]) for job in jobs]
    table(results)
    failed = [job for job, result in results if 'error' in result]
    spilling = [(job, k) for job, result in results for k in result.get('kernels', ())
                if k['spills'] and is_forward(k['name'])]
    if 'markdown' in options:
        markdown(results)
    if 'rows' in options:
        for job, result in results:
            for k in result.get('kernels', ()):
                print('\t'.join(map(str, (job[0], *k.values(), job[3]))))
    for job, k in spilling:
        print('SPILLS %s of %s: %d, with %s' % (k['name'], job[0], k['spills'], job[3]))
    print('%d compiled, %d failed, %d forward kernels spill' % (len(results) - len(failed), len(failed), len(spilling)))
    return 1 if failed or spilling else 0


sys.exit(main())
