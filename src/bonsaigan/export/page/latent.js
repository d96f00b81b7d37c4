// Seeds to latent vectors, number for number as the Python package draws them: NumPy's SeedSequence, then
// the Mersenne Twister and PyTorch's way from its numbers to a normal distribution.

const STREAM = 0x626f6e73;

/** The latent vector of a seed, from 0 to 2^32 - 1: Float32Array of that length, 16 or longer. */
export function latentOf(seed, length) {
  const [, low] = seedSequence([STREAM, seed >>> 0]);
  const next = mersenneTwister(low);
  const z = new Float32Array(length);
  const uniform = () => (next() & 0xffffff) / 0x1000000;
  for (let i = 0; i < length; i++) z[i] = uniform();
  for (let i = 0; i + 16 <= length; i += 16) makeNormal(z.subarray(i, i + 16));
  if (length % 16) {
    // What is left over is less than a block, so the last sixteen are drawn anew.
    const tail = z.subarray(length - 16);
    for (let i = 0; i < 16; i++) tail[i] = uniform();
    makeNormal(tail);
  }
  return z;
}

/** The point at share t, 0 to 1, of the great circle from a to b (Shoemake 1985). */
export function slerp(a, b, t) {
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) { dot += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
  const omega = Math.acos(Math.min(1, Math.max(-1, dot / Math.sqrt(aa * bb))));
  const sine = Math.sin(omega);
  const [p, q] = sine < 1e-4 ? [1 - t, t] : [Math.sin((1 - t) * omega) / sine, Math.sin(t * omega) / sine];
  return a.map((value, i) => p * value + q * b[i]);
}

// Box and Muller's transform on sixteen uniform numbers: eight radii, eight angles.
function makeNormal(block) {
  for (let i = 0; i < 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - block[i]));
    const angle = 2 * Math.PI * block[i + 8];
    block[i] = radius * Math.cos(angle);
    block[i + 8] = radius * Math.sin(angle);
  }
}

// Two 32-bit words out of a list of at most four.
function seedSequence(entropy) {
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    value ^= constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mix = (x, y) => {
    const mixed = Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715) | 0;
    return mixed ^ (mixed >>> 16);
  };
  const pool = [0, 1, 2, 3].map((i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++)
      if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  let outer = 0x8b51f9dd;
  return [0, 1].map((i) => {
    let value = pool[i] ^ outer;
    outer = Math.imul(outer, 0x58f38ded);
    value = Math.imul(value, outer);
    return (value ^ (value >>> 16)) >>> 0;
  });
}

// MT19937 (Matsumoto & Nishimura 1998), seeded with one word.
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++)
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let index = 624;
  return () => {
    if (index === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      index = 0;
    }
    let y = state[index++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}
