// A chart card: draws a plotly figure with Plotly.react, keeps zoom while data streams in, follows light and dark,
// reports clicks, exports PNG / SVG / CSV / JSON and carries its own table. `props.value` is the JSON of a Chart.
const find = name => element.querySelector(name);
const plot = find('.dl-plot'), note = find('.dl-note'), empty = find('.dl-empty'), card = find('.dl-chart');
const table = find('.dl-table'), body = find('.dl-table-body');
let plotly = null, waiting = null, drawn = null, text = null, busy = false, wired = false, gone = false, tabled = null;

const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();
const PEOPLE = {'#0072B2': '--dl-father', '#D55E00': '--dl-mother', '#009E73': '--dl-child'};
const inTheme = words => document.body.classList.contains('dark')          // people are lighter on dark paper
  ? words.replace(/#(0072B2|D55E00|009E73)/gi, colour => css(PEOPLE[colour.toUpperCase()])) : words;
function themed(layout) {
  const ink = css('--dl-ink'), soft = css('--dl-soft'), line = css('--dl-line'), surface = css('--dl-surface');
  const out = {...layout, autosize: true, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: layout.plot_bgcolor || 'rgba(0,0,0,0)',
    font: {...(layout.font || {}), family: css('--font') || 'sans-serif', color: soft},
    hoverlabel: {...(layout.hoverlabel || {}), bgcolor: surface, bordercolor: line,
      font: {...(layout.hoverlabel?.font || {}), family: css('--font') || 'sans-serif', color: ink}}};
  for (const key of Object.keys(out))
    if (/^[xy]axis\d*$/.test(key)) out[key] = {gridcolor: line, zerolinecolor: line, linecolor: line, ...out[key]};
  const paper = shape => shape.line?.color === '#FFFFFF' ? {...shape, line: {...shape.line, color: surface}} : shape;
  if (layout.shapes) out.shapes = layout.shapes.map(paper);                 // white lines are gaps: paper shows
  return out;
}

function marked(figure) {                                                   // a thin frame around the selected layer
  const layout = themed(figure.layout || {}), layer = window.__darwinLayer;
  if (!props.layered || layer == null || !figure.data.length) return layout;
  const across = figure.data[0].x || [], names = Array.isArray(across) && across.length && typeof across[0] === 'string';
  const at = names ? across.indexOf('L' + layer) : layer;
  if (at < 0) return layout;
  const frame = {type: 'rect', x0: at - 0.5, x1: at + 0.5, y0: 0, y1: 1, yref: 'paper', layer: 'above', line: {color: css('--dl-amber'), width: 2}};
  return {...layout, shapes: [...(layout.shapes || []), frame]};
}

function save(name, words, type) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([words], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const KINDS = {f4: Float32Array, i2: Int16Array, u1: Uint8Array};
const short = v => +v.toPrecision(7), asIs = v => v;
function unpacked(values, name, rounded = short) {
  const {dtype, bdata, word, of, factor} = values[name];
  if (of) { const read = unpacked(values, of, rounded); return at => { const v = read(at); return v == null ? null : rounded(v * factor); }; }
  const packed = new KINDS[dtype](Uint8Array.from(atob(bdata), c => c.charCodeAt(0)).buffer);
  return word != null ? at => packed[at] ? word : '' : dtype === 'f4' ? at => Number.isFinite(packed[at]) ? rounded(packed[at]) : null : at => packed[at];
}
function numbers() {                                                        // of a large map the rows are made when asked for
  if (!drawn.cells || drawn.rows.length) return drawn;
  const {labels, across, down, values} = drawn.cells, reads = Object.keys(values).map(name => unpacked(values, name));
  drawn.columns = [...labels, ...Object.keys(values)];
  drawn.rows = across.flatMap((name, i) => down.map((other, j) => [name, other, ...reads.map(read => read(i * down.length + j))]));
  return drawn;
}
function dressed(figure, cells, rounded = short) {                          // and so are the numbers it says when hovered
  for (const trace of cells ? figure.data : []) {
    if (!trace.meta?.hover) continue;
    const reads = trace.meta.hover.map(name => unpacked(cells.values, name, rounded));
    trace.customdata = cells.down.map((_, j) => cells.across.map((_, i) => reads.map(read => read(i * cells.down.length + j))));
  }
  return figure;
}
const quoted = v => v == null ? '' : /[",\n]/.test(String(v)) ? '"' + String(v).replace(/"/g, '""') + '"' : String(v);
const csv = chart => [chart.columns, ...chart.rows].map(row => row.map(quoted).join(',')).join('\n');
function picture(format) {
  const layout = {...plot.layout, paper_bgcolor: css('--dl-surface'), title: {text: props.title, x: 0.02, font: {size: 15, color: css('--dl-ink')}},
    margin: {...plot.layout.margin, t: (plot.layout.margin?.t || 20) + 34}};
  plotly.downloadImage({data: plot.data, layout, config: {displayModeBar: false}},
    {format, filename: props.filename, width: plot.clientWidth, height: plot.clientHeight + 34, scale: format === 'png' ? 2 : 1});
}
const exports_ = {
  png: () => picture('png'),
  svg: () => picture('svg'),
  csv: () => save(props.filename + '.csv', csv(numbers()), 'text/csv'),
  numbers: () => save(props.filename + '-numbers.json', JSON.stringify({title: props.title, note: drawn.note, columns: numbers().columns, rows: drawn.rows}), 'application/json'),
  json: () => save(props.filename + '.json', JSON.stringify(dressed(drawn.figure, drawn.cells)), 'application/json'),
  reset: () => plotly.relayout(plot, Object.fromEntries(Object.keys(plot._fullLayout).filter(k => /^[xy]axis\d*$/.test(k))
    .flatMap(k => drawn.figure.layout[k]?.range ? [[k + '.range', [...drawn.figure.layout[k].range]]] : [[k + '.autorange', drawn.figure.layout[k]?.autorange || true]]))),
};
element.addEventListener('click', event => {
  const wish = event.target.closest('[data-export]')?.dataset.export;
  if (wish && drawn?.figure) { exports_[wish](); event.target.closest('details').open = false; }
});
function closeOthers(event) {
  for (const pop of element.querySelectorAll('details.dl-pop[open]'))
    if (!pop.contains(event.target) || event.key === 'Escape') pop.open = false;
}
document.addEventListener('click', closeOthers);
element.addEventListener('keydown', event => { if (event.key === 'Escape') closeOthers({target: document.body}); });

function number(v) {
  if (typeof v !== 'number') return v == null ? '–' : String(v);
  return Number.isInteger(v) ? v.toLocaleString('en') : Math.abs(v) >= 100 ? v.toFixed(1) : v.toFixed(4);
}
function tabulate() {
  if (!table.open || tabled === text || !drawn) return;
  tabled = text;
  numbers();
  const grid = document.createElement('table'), head = grid.createTHead().insertRow(), rows = grid.createTBody();
  for (const name of drawn.columns) { const cell = document.createElement('th'); cell.scope = 'col'; cell.textContent = name; head.append(cell); }
  for (const row of drawn.rows.slice(0, 600)) {
    const line = rows.insertRow();
    for (const value of row) { const cell = line.insertCell(); cell.textContent = number(value); if (typeof value === 'number') cell.className = 'num'; }
  }
  body.replaceChildren(grid);
  if (drawn.rows.length > 600) body.append(`600 of ${drawn.rows.length.toLocaleString('en')} rows; export CSV for all of them.`);
}
table.addEventListener('toggle', tabulate);

// A layered chart has a cursor: a click sets it, arrow keys move it, and the frame follows before the server answers.
const layerOf = x => typeof x === 'string' ? +x.replace(/^L/, '') : x;
function select(layer, row) {
  window.__darwinLayer = layer;
  window.__darwinRow = row;
  window.dispatchEvent(new CustomEvent('darwin-layer'));
}
if (props.layered) plot.tabIndex = 0;
plot.addEventListener('keydown', event => {
  const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  const first = drawn?.figure?.data[0];
  if (!props.layered || !move || !first || !wired) return;
  event.preventDefault();
  const layers = Array.from(plot._fullData[0].x), rows = Array.from(plot._fullData[0].y), named = typeof rows[0] === 'string';
  const at = layers.map(layerOf).indexOf(window.__darwinLayer), beside = Math.min(layers.length - 1, Math.max(0, at < 0 ? 0 : at + move[0]));
  const row = Math.min(rows.length - 1, Math.max(0, (window.__darwinRow ?? 0) + move[1]));
  window.__darwinMoved = performance.now();
  select(layerOf(layers[beside]), row);
  trigger('select', {x: layers[beside], y: named ? rows[row] : null, curve: 0, name: '', customdata: null});
});

const nearby = () => plot.getBoundingClientRect().top < window.innerHeight;      // what can be seen is drawn first
async function pump() {
  if (busy || gone) return;
  busy = true;
  try {
    plotly = plotly || await window.__darwinPlotly;
    while (waiting !== null && !gone) {
      if (!plot.offsetParent) break;                                          // hidden: keep the newest, draw on return
      if (plot._dragging) { setTimeout(pump, 120); break; }                   // never redraw under the mouse
      const next = waiting;
      waiting = null;
      const chart = JSON.parse(inTheme(next)), figure = dressed(chart.figure, chart.cells, asIs);
      if (!wired) {
        if (!nearby()) await new Promise(go => (window.requestIdleCallback || setTimeout)(go, {timeout: 2500}));
        await plotly.newPlot(plot, [], {}, {responsive: false, displayModeBar: false, displaylogo: false, doubleClick: 'reset'});
        plot._context._baseUrl = '';      // gradients, patterns and clips must survive a change of the address bar
      }
      await plotly.react(plot, figure.data, marked(figure));
      plot.dataset.draws = (+plot.dataset.draws || 0) + 1;
      if (!wired) {
        wired = true;
        plot.on('plotly_click', event => {
          const point = event.points[0];
          if (props.layered) select(layerOf(point.x), Math.max(0, Array.from(plot._fullData[0].y).indexOf(point.y)));
          trigger('select', {x: point.x ?? null, y: point.y ?? null, curve: point.curveNumber, name: point.data.name ?? '', customdata: point.customdata ?? null});
        });
      }
    }
  } catch (error) {
    empty.textContent = 'This chart could not be drawn: ' + error.message;
    card.dataset.state = 'empty';
    console.error('chart', props.title, error);
  } finally { busy = false; }
}
function feed() {
  if (!props.value || props.value === text) return;
  text = props.value;
  drawn = JSON.parse(text);
  note.textContent = drawn.note || '';
  card.dataset.state = drawn.figure ? 'ready' : 'empty';
  table.hidden = !drawn.rows.length && !drawn.cells;
  card.dataset.gone = !!drawn.hidden;                                       // gradio rewrites the classes of its own elements
  find('.dl-stage').style.height = (drawn.height || props.height) + 'px';
  if (!drawn.figure) { empty.textContent = drawn.empty; waiting = null; return; }
  plot.setAttribute('aria-label', drawn.alt || props.title);
  waiting = text;
  pump();
  tabulate();
}
watch('value', feed);
feed();
const resized = new ResizeObserver(() => {
  if (!plot.offsetParent) return;
  if (waiting) pump();
  else if (wired && plotly) plotly.Plots.resize(plot);
});
resized.observe(element);
const repaint = new MutationObserver(() => { if (drawn?.figure) { waiting = waiting ?? text; pump(); } });
repaint.observe(document.body, {attributes: true, attributeFilter: ['class']});
const relayer = () => { if (props.layered && drawn?.figure) { waiting = waiting ?? text; pump(); } };
window.addEventListener('darwin-layer', relayer);
const removed = new MutationObserver(() => {
  if (element.isConnected) return;
  gone = true;
  for (const observer of [resized, repaint, removed]) observer.disconnect();
  document.removeEventListener('click', closeOthers);
  window.removeEventListener('darwin-layer', relayer);
  if (plotly) plotly.purge(plot);
});
removed.observe(document.body, {childList: true, subtree: true});
