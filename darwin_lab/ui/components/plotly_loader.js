// plotly.js is asked for as soon as the page is there; every chart waits for the same promise.
window.__darwinPlotly = new Promise((resolve, reject) => {
  const script = document.createElement('script');
  script.src = (window.gradio_config?.root || '') + source;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => reject(new Error('plotly.js is not served'));
  document.head.appendChild(script);
});
window.__darwinPlotly.catch(() => {});                    // the charts say it
